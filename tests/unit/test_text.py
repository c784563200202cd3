"""Strangers' text is cut between whole characters in the CRM's unit, and never runs as a formula."""

from __future__ import annotations

import time

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from app.domain.text import CUT_MARK, Unit, clean_text, cut, is_formula, measure, no_formula

FAMILY, FLAG, WAVE, ACCENTED = "👨‍👩‍👧‍👦", "🇩🇪", "👋🏽", "x\u0308\u0323"
signs = st.lists(st.sampled_from([*"ab ä\n", "🌟", FAMILY, FLAG, WAVE, ACCENTED, "❤️", "한"]))
texts = st.one_of(st.text(), signs.map("".join))
units = st.sampled_from(list(Unit))


@given(texts, st.integers(0, 40), units)
def test_cut_text_fits_and_ends_between_signs(text: str, limit: int, unit: Unit) -> None:
    """Cut text fits, ends with the mark, and starts with whole characters of the original."""
    short = cut(text, limit, unit)
    assert measure(short, unit) <= limit
    if measure(text, unit) <= limit:
        assert short == text
        return
    if not limit:
        assert short == ""
        return
    assert short.endswith(CUT_MARK)
    kept = short.removesuffix(CUT_MARK)
    whole = regex.findall(r"\X", text)
    starts = {"".join(whole[:count]).rstrip() for count in range(len(whole) + 1)}
    assert kept in starts


@given(texts)
def test_utf16_is_what_java_counts(text: str) -> None:
    """A UTF-16 unit is two bytes, and there are never more code points than units."""
    assert measure(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2
    assert measure(text, Unit.CODE_POINT) == len(text) <= measure(text)


@pytest.mark.parametrize("sign", [FAMILY, FLAG, WAVE, ACCENTED, "🌟", "❤️"])
def test_a_joined_sign_is_never_halved(sign: str) -> None:
    """A joined character is never split: as many whole characters stay as fit."""
    size = measure(sign)
    for limit in range(1, 4 * size):
        count = (limit - 1) // size
        assert cut(sign * 4, limit) == sign * min(count, 4) + CUT_MARK


@pytest.mark.parametrize(
    "text",
    ['=HYPERLINK("http://x.example","Click")', "=cmd|' /C calc'!A0", "@SUM(1+1)*2", "-2+3+cmd|'/C x'!A0",
     "+WEBSERVICE(A1)", "='http://x.example/[a.xls]S'!A1", "= IMPORTXML(A1)", "＝HYPERLINK(A1)", "\t=LOG10(A1)", "=SUM (A1)",
     "-WEBSERVICE(A1)", "@STDEV.S(A1)"],
)  # fmt: skip
def test_a_formula_becomes_text(text: str) -> None:
    """A text that a spreadsheet would run gets one apostrophe in front and loses nothing."""
    made = no_formula(text)
    assert made == f"'{text}"
    assert no_formula(made) == made


@pytest.mark.parametrize(
    "text", ["+49 (151) 23456789", "+49(0)151", "-", "- later", "@jane", "=", "= 5", "-5", "+1", "@{n0.id}",
             "Tea (green)", "a=HYPERLINK(1)", "- Budget (EUR)", "@holm (work)"],
)  # fmt: skip
def test_what_is_no_formula_stays(text: str) -> None:
    """Numbers, handles, dashes and template references stay as typed."""
    assert no_formula(text) == text


@given(st.text(alphabet="=+-@\t (|!'ABab1.,]\"") | texts)
def test_clean_text_stays_clean(text: str) -> None:
    """A second cleaning changes nothing, no formula is left, and only an apostrophe is added."""
    made = clean_text(text)
    assert clean_text(made) == made
    safe = no_formula(made or "")
    assert not is_formula(safe)
    assert safe in (made or "", f"'{made}")


@pytest.mark.parametrize("text", ["a", "'", "a'", "].("])
def test_a_long_text_is_looked_at_fast(text: str) -> None:
    """A quarter of a megabyte that is almost a formula takes hardly any time."""
    began = time.process_time()
    assert not is_formula("=" + text.replace("(", "") * 250_000)
    assert time.process_time() - began < 0.5
