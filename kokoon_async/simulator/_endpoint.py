"""
What the API answers when nothing goes wrong on purpose.
"""

import asyncio
import math

from aiohttp import web

from ._answers import Answer, make_message, make_text
from ._images import ImageStore
from ._rate import TokenBucket


BASE_PATH = "/kokoon/api/image/sr/v3"
"""The path of the API, as in the vendor's base URL."""

IMAGE_PATH = f"{BASE_PATH}/image/"
"""What stands before the id in the path of an image."""

MISSING = "fail to get result."
"""The documented message for an image that does not exist."""


class ImageEndpoint:
    """
    Answer ``GET /image/{vid}``, and refuse everything else.

    Args:
        images: The simulated images.

        token: The only accepted one; ``None`` accepts any that is not empty.

        requests_per_second: Beyond it the answer is 429.

        missing_status: The status for an image that does not exist.

    Attributes:
        token: The only accepted one, or ``None``.
    """

    def __init__(
        self,
        images: ImageStore,
        *,
        token: str | None,
        requests_per_second: float | None,
        missing_status: int,
    ) -> None:
        if type(missing_status) is not int or not 200 <= missing_status <= 599:  # noqa: PLR2004
            raise ValueError(f"missing_status must be from 200 to 599, not {missing_status!r}")
        self.token = token
        self._images = images
        self._bucket = None if requests_per_second is None else TokenBucket(requests_per_second)
        self._missing_status = missing_status

    def answer(self, request: web.BaseRequest, vid: str | None) -> Answer:
        """
        Make the answer that a request deserves.

        Args:
            request: The request.

            vid: The id in its path; ``None`` if it is not the path of an image.
        """
        if vid is None:
            return make_text(404, f"the simulator serves {IMAGE_PATH}{{vid}} only\n")
        if request.method != "GET":
            return make_text(405, "images are read with GET\n", {"Allow": "GET"})
        return self._refuse(request) or self._read_image(vid)

    def _refuse(self, request: web.BaseRequest) -> Answer | None:
        """Check the token and the rate."""
        token = request.headers.get("Authorization")
        if not token or self.token not in (None, token):
            return make_message(401, "unauthorized")
        if self._bucket is not None:
            wait = self._bucket.take(asyncio.get_running_loop().time())
            if wait:
                headers = {"Retry-After": str(math.ceil(wait))}
                return make_message(429, "too many requests", headers)
        return None

    def _read_image(self, vid: str) -> Answer:
        image = self._images.find(vid)
        if image is None:
            return make_message(self._missing_status, MISSING)
        state = image.state(self._images.now())
        return Answer(200, self._images.record(image, state), image=image, state=state)
