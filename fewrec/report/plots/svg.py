"""Making matplotlib's SVG small, and safe to put inline: unique ids, no style sheet, no style attributes, few decimals.

A page that forbids inline styles (Content-Security-Policy) can show it, and twenty of them in one page don't clash.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")
_FONT = re.compile(r"(?:(?P<slant>italic|oblique)\s+)?(?:(?P<weight>bold|\d{3})\s+)?(?P<size>[\d.]+)px")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DEFAULTS = {"fill-opacity": "1", "stroke-opacity": "1", "stroke-dashoffset": "0", "stroke-linejoin": "round",
             "stroke-linecap": "butt"}  # fmt: skip
_FONTS = "'DejaVu Sans', Verdana, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def small_svg(source: bytes, prefix: str, alt: str) -> str:
    """Return matplotlib's SVG ``source`` as one small ``<svg>`` element with ``role="img"`` and the label ``alt``.

    Its ids begin with ``prefix`` (letters, digits, hyphens). Text stays text. The same input gives the same output.
    """
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style", "title"):
                parent.remove(child)
    used = {found for element in root.iter() for found in _references(element)}
    for element in root.iter():
        _rewrite(element, prefix, used)
    _unwrap(root)
    box = root.get("viewBox", "0 0 1 1").split()
    root.attrib.clear()
    root.attrib |= {"viewBox": " ".join(box), "width": box[2], "height": box[3], "role": "img", "aria-label": alt,
                    "font-family": _FONTS, "stroke-linejoin": "round", "class": "chart"}  # fmt: skip
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _references(element: ElementTree.Element) -> list[str]:
    found = [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]
    return [*found, element.attrib[_LINK].removeprefix("#")] if _LINK in element.attrib else found


def _rewrite(element: ElementTree.Element, prefix: str, used: set[str]) -> None:
    attributes = dict(element.attrib)
    element.attrib.clear()
    for declaration in attributes.pop("style", "").split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            attributes |= _presentation(name.strip(), value.strip())
    for name, value in attributes.items():
        if name == "id":
            if value in used:
                element.set("id", f"{prefix}-{value}")
        elif name == _LINK:
            element.set("href", f"#{prefix}-{value.removeprefix('#')}")
        elif _DEFAULTS.get(name) != value:
            value = _REFERENCE.sub(lambda found: f"url(#{prefix}-{found.group(1)})", value)
            element.set(name, _rounded(value) if name in ("d", "x", "y", "width", "height", "transform") else value)
    element.tail = None
    if element.tag != f"{{{SVG}}}text":
        element.text = None


def _presentation(name: str, value: str) -> dict[str, str]:
    if name == "font-size":
        return {name: value.removesuffix("px")}  # px is the unit of a number without one
    if name != "font":
        return {name: value}
    font = _FONT.match(value)
    if font is None:
        return {}
    parts = {"font-size": font["size"], "font-weight": font["weight"], "font-style": font["slant"]}
    return {part: said for part, said in parts.items() if said}


def _rounded(value: str) -> str:
    """Round to a tenth of a pixel and write path data in one line."""
    short = _NUMBER.sub(lambda found: f"{float(found.group()):.1f}".removesuffix(".0").replace("-0.", "-."), value)
    short = re.sub(r"(?<![\d.])0\.", ".", short)
    return re.sub(r"\s*([MLCQZ])\s*", r"\1", " ".join(re.sub(r"(?<![\d.])-0(?![\d.])", "0", short).split()))


def _unwrap(element: ElementTree.Element) -> None:
    """Replace groups that say nothing by what they hold."""
    children: list[ElementTree.Element] = []
    for child in list(element):
        _unwrap(child)
        plain_group = child.tag == f"{{{SVG}}}g" and not child.attrib
        children += list(child) if plain_group else [child]
    for child in list(element):
        element.remove(child)
    element.extend(children)
