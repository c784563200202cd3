"""The pages for people: the consent to an app, and the contents of a CRM."""

from __future__ import annotations

CONSENT = """<!doctype html><html lang="en"><title>{{ title }}: allow access</title>
<body style="font-family:sans-serif;max-width:32rem;margin:3rem auto">
<h1>{{ title }} (sandbox)</h1><p><strong>meetergo CRM bridge</strong> asks for:</p>
<ul>{% for scope in scopes %}<li>{{ scope }}</li>{% endfor %}</ul>
<form method="post">{% for name, value in fields.items() %}<input type="hidden" name="{{ name }}" value="{{ value }}">{% endfor %}
<button name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button></form>"""


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }} sandbox</title>
<style>body{font:15px/1.5 sans-serif;margin:2rem;color:#222}table{border-collapse:collapse;width:100%}
th,td{border-bottom:1px solid #ddd;text-align:left;padding:.3rem .6rem;vertical-align:top}h2{margin-top:2rem}</style>
<h1>{{ title }} (sandbox)</h1><p>{{ calls }} API calls so far.</p>
<h2>Contacts ({{ view.contacts|length }})</h2><table><tr><th>Id</th><th>First</th><th>Last</th><th>E-mail</th><th>Phone</th><th>Company</th></tr>
{% for c in view.contacts %}<tr><td>{{ c.id }}</td><td>{{ c.first or '' }}</td><td>{{ c.last or '' }}</td><td>{{ c.email or '' }}</td><td>{{ c.phone or '' }}</td><td>{{ c.company_id or '' }}</td></tr>{% endfor %}</table>
<h2>Companies ({{ view.companies|length }})</h2><table><tr><th>Id</th><th>Name</th><th>Domain</th></tr>
{% for c in view.companies %}<tr><td>{{ c.id }}</td><td>{{ c.name }}</td><td>{{ c.domain or '' }}</td></tr>{% endfor %}</table>
<h2>Deals ({{ view.deals|length }})</h2><table><tr><th>Id</th><th>Title</th><th>Stage</th><th>People</th><th>Owner</th></tr>
{% for d in view.deals %}<tr><td>{{ d.id }}</td><td>{{ d.title }}</td><td>{{ d.stage }}</td><td>{% for i in d.contact_ids %}{{ names.get(i, i) }}{{ ', ' if not loop.last }}{% endfor %}</td><td>{{ d.owner or '' }}</td></tr>{% endfor %}</table>
<h2>Meetings ({{ view.meetings|length }})</h2><table><tr><th>Id</th><th>Title</th><th>Start</th><th>Minutes</th><th>State</th><th>People</th><th>Body</th></tr>
{% for m in view.meetings %}<tr><td>{{ m.id }}</td><td>{{ m.title }}</td><td>{{ m.start }}</td><td>{{ m.minutes }}</td><td>{{ 'cancelled' if m.cancelled else 'scheduled' }}</td><td>{% for i in m.contact_ids %}{{ names.get(i, i) }}{{ ', ' if not loop.last }}{% endfor %}</td><td style="white-space:pre-line">{{ m.body }}</td></tr>{% endfor %}</table>"""
