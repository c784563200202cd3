"""Texts of strangers that mean something to a machine; in a CRM they must stay plain text.

Every test that sends people's texts uses this pool: add new texts that you find in practice.
"""

from __future__ import annotations

HOSTILE: dict[str, str] = {
    # Salesforce fills in results of other parts: composite calls, https://developer.salesforce.com
    "reference that is there": "@{n0.id}",
    "reference that is not there": "@{zz.id}",
    "reference in a sentence": "ask @{team.lead} first",
    "reference into a list": "@{n0.errors[0]}",
    "open reference": "mail me @{home",
    # Personalisation in CRMs, forms and mail tools
    "personalisation token": "{{contact.firstname}}",
    "merge field": "%FIRST_NAME%",
    "template statement": "{% for x in y %}{{ 7*7 }}",
    "dollar braces": "${7*7} #{7*7}",
    # Formulas for a spreadsheet export
    "formula": "=cmd|' /C calc'!A0",
    "sum": "+1+1",
    "at formula": "@SUM(1+1)",
    # Markup and queries
    "script": "<script>alert(1)</script>",
    "entity": "&lt;b&gt; &amp; <b>",
    "query quotes": "O'Brien\\' OR Name LIKE '%",
    "query comment": '"; DROP TABLE contacts; --',
    "path": "../../etc/passwd?x=1#y",
    # Characters
    "right to left marks": "\u202egnirts\u202c \u200fעברית\u200e",
    "joined emoji": "👩‍👩‍👧‍👦 Zoë 🌟",
    "nul": "nul\x00byte",
    "control characters": "bell\x07 escape\x1b[31m",
    "very long word": "W" * 3000,
    "lines": "one\r\ntwo\u2028three",
}
"""Kind -> the text."""
