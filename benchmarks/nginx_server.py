"""Serve image records with nginx from the distribution: one worker, static files."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path


__all__ = ["RECORD", "serve_any_record", "serve_records"]

RECORD = {
    "uid": "539e3480-929a-11ee-ada2-51e4bfe11414",
    "vid": "",
    "pid": "00000000-0000-0000-0000-000000000000",
    "tid": "00000000-0000-0000-0000-000000000000",
    "created_time": "2024-02-01T12:17:32.699Z",
    "filename": "original.png",
    "size": 939073,
    "codec_name": "png",
    "fps": "25/1",
    "duration": "0",
    "nb_frames": "1",
    "bitrate": "0",
    "width": 640,
    "height": 360,
    "download_cnt": 0,
    "expired_time": "2024-02-15T12:17:32.699Z",
    "state": "completed",
    "url": "https://storage.example.com/video/539e3480/{vid}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIA%2F20240201%2Fap-northeast-2%2Fs3%2Faws4_request"
    "&X-Amz-Date=20240201T121732Z&X-Amz-Expires=3600&X-Amz-Signature=" + "0123456789abcdef" * 4,
    "thumb_url": "https://storage.example.com/video/539e3480/{vid}/thumb?X-Amz-Signature="
    + "fedcba9876543210" * 4,
    "last_category": None,
}
"""The vendor's sample record, with presigned addresses of a usual length."""

_CONFIGURATION = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 3600;
    default_type application/json;
    open_file_cache max=512 inactive=1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}/root; {locations} }}
}}
"""


@contextlib.contextmanager
def serve_any_record() -> Iterator[str]:
    """Run nginx on a free loopback port and give the base URL; any id has a record there."""
    record = json.dumps(RECORD).replace('"vid": ""', '"vid": "$vid"').replace("{vid}", "$vid")
    location = f"location ~ ^/image/(?<vid>[0-9a-f-]+)$ {{ return 200 '{record}'; }}"
    with _nginx(location) as (base_url, _):
        yield base_url


@contextlib.contextmanager
def serve_records(count: int) -> Iterator[tuple[str, list[str]]]:
    """
    Run nginx on a free loopback port and give the base URL and the vids of its records.

    Args:
        count: How many records there are.
    """
    vids = [str(uuid.UUID(int=number, version=1)) for number in range(1, count + 1)]
    with _nginx("") as (base_url, root):
        images = root / "image"
        images.mkdir(parents=True)
        for vid in vids:
            (images / vid).write_text(json.dumps(RECORD | {"vid": vid}).replace("{vid}", vid))
        yield base_url, vids


@contextlib.contextmanager
def _nginx(locations: str) -> Iterator[tuple[str, Path]]:
    """Run nginx with some locations; give the base URL and the folder of static files."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        sys.exit("This benchmark needs nginx: install your distribution's package and run again.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the worker runs as another user where we are root
        port = _free_port()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(folder=folder, port=port, locations=locations)
        )
        server = subprocess.Popen([nginx, "-c", configuration, "-p", folder])
        try:
            _await_port(port)
            yield f"http://127.0.0.1:{port}", folder / "root"
        finally:
            server.terminate()
            server.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    sys.exit("nginx did not start.")
