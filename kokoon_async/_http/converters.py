"""
cattrs converters that read and write images: for classes of the user's own.

Apart from `wire`, whose rules they follow, because the client itself does without: to
import cattrs takes a tenth of the time that aiohttp takes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override
from cattrs.preconf.orjson import OrjsonConverter
from cattrs.preconf.orjson import make_converter as make_orjson_converter

from ..models import Image
from .wire import FIELD_RULES, WIRE_FIELDS, WireError, image_to_object, unknown_fields


__all__ = ["configure_converter", "make_converter"]


def _image_reader(converter: Converter, *, detailed: bool) -> Callable[[Any, Any], Image]:
    overrides: dict[str, Any] = {
        field.name: override(rename=field.alias, struct_hook=FIELD_RULES[str(field.alias)])
        for field in WIRE_FIELDS
    }
    read_known = make_dict_structure_fn(
        Image,
        converter,
        _cattrs_detailed_validation=detailed,
        _cattrs_forbid_extra_keys=False,
        extra=override(struct_hook=lambda unknown, _: unknown),
        **overrides,
    )

    def read_image(record: Any, _: Any) -> Image:
        if type(record) is not dict and not isinstance(record, Mapping):
            raise WireError("is not an object")
        return read_known({**record, "extra": unknown_fields(record)}, Image)

    return read_image


def configure_converter(converter: Converter) -> None:
    """
    Teach a cattrs converter of yours to read and write `Image`.

    Nothing else changes: the rules sit on this one class, so your own classes
    keep their own treatment of dates, numbers and texts.
    """
    converter.register_structure_hook(
        Image, _image_reader(converter, detailed=converter.detailed_validation)
    )
    converter.register_unstructure_hook(Image, image_to_object)


def make_converter(*, detailed_validation: bool = True) -> OrjsonConverter:
    """Build a cattrs converter for JSON that reads and writes `Image`."""
    converter = make_orjson_converter(detailed_validation=detailed_validation)
    configure_converter(converter)
    return converter
