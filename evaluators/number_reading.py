"""Reads the number that a reply gives, as people, Markdown and LaTeX write numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal
from typing import Final

_NUMBER: Final = re.compile(
    r"(?:(?<![^\W_])(?<!\))[-+−])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
    r"(?:\s*/\s*[-+−]?\d+(?:\.\d+)?)?"
)
_GROUPED: Final = re.compile(r"(?<=\d)(?:\{,\}|\\[,! ]|[\u00a0\u2009\u202f'’_])(?=\d{3}(?!\d))")
"""What stands between thousands beside a comma: LaTeX's and the narrow spaces, the Swiss mark, Python's."""
_COMMAS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_VULGAR: Final = re.compile("(?:(?<=\\d)()[ \u00a0\u2009\u202f]?)?([¼-¾⅐-⅞])")
_PLAIN: Final = r"[-+−]?\d+(?:\.\d+)?"
_FRACTION: Final = re.compile(
    rf"(?:(?<!\d)(\d+)\s*)?\\[dt]?frac\s*(?:\{{\s*({_PLAIN})\s*\}}|(\d))\s*(?:\{{\s*({_PLAIN})\s*\}}|(\d))"
)
_MIXED: Final = re.compile(r"(?<![\d.,/^])(\d+) (\d+)/(\d+)(?!\d|\.\d)")
_TIMES_TEN: Final = re.compile(
    r"(?<=\d)\s*(?:[×·⋅*xX]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*(?:\{\s*([-+−]?\d+)\s*\}|([-+−]?\d+))"
)
_POWERS: Final = tuple(
    re.compile(
        rf"(?:\(\s*({_PLAIN})\s*\)|(?<![\w.,]){before}(\d+(?:\.\d+)?)){sign}"
        rf"(?:\{{\s*({_PLAIN})\s*\}}|\(\s*({_PLAIN})\s*\)|({_PLAIN}))(?!\w|\.\d|\s*\^{after})"
    )
    for sign, before, after in ((r"\s*\^\s*", "", ""), (r"(?:\*\*| \*\* )", r"(?<!\*\*)", r"|\*\*"))
)
"""2^3 and 2**3; `day 4 **12**` is Markdown's bold 12."""
_MARK: Final = re.compile(
    r"\^\s*(?:\{\s*)?(?:\\(?:circ|degree|prime|ast|dagger|text\w*|mathrm)\b\s*(?:\{[^{}]*\})?|(?:st|nd|rd|th|o)\b|[*'°†])"
    r"(?:\s*\})?"
)
"""What is raised and no exponent: degrees, ordinals, primes, notes."""
_OTHER_POWER: Final = re.compile(
    r"(?:\([^()]*\)|(?<![\w.,])\d[\d.,]*|(?<!\s))\s*\^\s*(?:\{[^{}]*\}|\([^()]*\)|[-+−]?\w+(?:\.\d+)?)"
)
"""Of a unit, such as cm^2, of a letter, or of what cannot be computed: nothing of it is a number."""
_SUBSCRIPT: Final = re.compile(r"(?:(?<=[\d)}])|(?<=\b[^\W\d_]))_(?:\{[^{}]*\}|[^\W_]+)")
"""The base of 101_2 and the name of x_1."""
_NO_NUMBER: Final = re.compile(
    r"(?:(?<![\d.,])\.?\d(?:[.,]?\d)*+(?: ?/ ?\d(?:[.,]?\d)*+)? ?(?:[*·×/]|\\cdot|\\times)? ?)?(?:"
    r"\\sqrt ?(?:\[[^\[\]]*\])?(?:\{[^{}]*\}|\w)|√ ?(?:[({][^(){}]*[)}]|[\w.]+)|(?<![^\W\d_])sqrt ?\([^()]*\)"
    r"|(?:\\pi(?![A-Za-z])|π|(?<![^\W\d_])pi\b)"
    r"|\\(?:ln|log|exp|sin|cos|tan)(?![A-Za-z])(?:_\w|_\{[^{}]*\})? ?(?:[({][^(){}]*[)}]|[\w.]+)"
    r"|\\[dt]?(?:frac|binom) ?(?:\{[^{}]*\}|\w) ?(?:\{[^{}]*\}|\w))(?: ?/ ?\d(?:[.,]?\d)*+)?"
)
"""Roots, multiples of π and the like, with what multiplies or divides them: none of their digits is the number."""
_SUPERSCRIPT: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_CURRENCY: Final = re.compile(r"(?<![^\W_])(?<!\))([-+])(?:\\?\$|[€£¥])(?=[\d.])")


def number_in(text: str) -> float | None:
    r"""Returns the last number of a text, None without one.

    3/4, \frac{3}{4}, 3½, 1.5 × 10^3 and 2^10 are each one number; the 2 of 7 cm^2, of x^2, of √2, of 101_2 and of 2π is none.
    """
    found = numbers_in(text)
    return _value(found[-1]) if found else None


def numbers_in(text: str, irrational: str = " ") -> list[str]:
    """Returns the numbers of a text, each root, multiple of π and the like replaced by `irrational`."""
    text = _VULGAR.sub(lambda found: " " * (found[1] is not None) + unicodedata.normalize("NFKC", found[2]), text)
    text = re.sub("[⁄∕]", "/", re.sub("[−–]", "-", _MARK.sub("", text)))
    text = _CURRENCY.sub(r"\1", _SUBSCRIPT.sub("", _GROUPED.sub("", text)))
    text = _COMMAS.sub(lambda found: found[0].replace(",", ""), text)
    text = re.sub("[⁰¹²³⁴-⁹⁺⁻]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPT)}}}", text)
    text = _TIMES_TEN.sub(lambda found: f"e{found[1] or found[2]}", text)
    text = _MIXED.sub(_fraction, _FRACTION.sub(_fraction, text))
    for _ in range(2):  # a root may stand in a fraction
        text = _NO_NUMBER.sub(irrational, text)
    for power in _POWERS:
        text = power.sub(_power, text)
    return _NUMBER.findall(_OTHER_POWER.sub("", text))


def _fraction(found: re.Match[str]) -> str:
    """Writes a fraction, alone or behind a whole number, as `top/bottom`."""
    whole, *parts = found.groups()
    top, bottom = (part for part in parts if part)
    if whole is None:
        return f"{top}/{bottom}"
    a, b = Decimal(top.replace("−", "-")), Decimal(bottom.replace("−", "-"))
    if a < 0 or b < 0 or (found.re is _MIXED and a >= b):
        return found[0]
    return f"{Decimal(whole) * b + a}/{bottom}"


def _power(found: re.Match[str]) -> str:
    base, exponent = (float(part) for part in found.groups() if part)
    try:
        value = base**exponent
    except (OverflowError, ZeroDivisionError):
        return found[0]
    return found[0] if isinstance(value, complex) else repr(value)


def _value(text: str) -> float | None:
    top, _, bottom = text.replace(",", "").replace(" ", "").partition("/")
    try:
        value = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None
    if not math.isfinite(value):
        return None
    # A float has but 15 digits; `int` refuses texts of more than 4,300, zeros before a number too.
    return int(Decimal(top)) if re.fullmatch(r"[-+]?\d+", top) and not bottom else value
