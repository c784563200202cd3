// What pages need beyond links and forms: the viewer's time zone, keys, and charts at rest.
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const kept = document.cookie.match(/(?:^|; )zone=([^;]*)/);
  if (!kept || decodeURIComponent(kept[1]) !== zone) {
    document.cookie = `zone=${encodeURIComponent(zone)}; path=/; max-age=31536000; samesite=lax`;
    // The times on this page were written for another zone: once is enough, cookies may be off.
    if (document.querySelector("time") && !sessionStorage.getItem("zone")) {
      sessionStorage.setItem("zone", zone);
      location.reload();
    }
  }

  const rows = () => [...document.querySelectorAll("[data-row]")];
  let at = -1;
  const go = (step) => {
    const all = rows();
    if (!all.length) return;
    const focused = all.indexOf(document.activeElement && document.activeElement.closest("[data-row]"));
    at = Math.max(0, Math.min(all.length - 1, (focused >= 0 ? focused : at) + step));
    const link = all[at].querySelector("a");
    if (link) link.focus();
    all[at].scrollIntoView({block: "nearest"});
  };
  const here = () => document.activeElement && document.activeElement.closest("[data-row]");
  const press = {
    "/": () => document.querySelector("input[type=search]"),
    j: () => { go(1); },
    k: () => { go(-1); },
    x: () => { const box = here() && here().querySelector("input[type=checkbox]"); if (box) box.click(); },
    r: () => { const button = (here() || document).querySelector("[data-retry]"); if (button) button.click(); },
    "?": () => { const keys = document.getElementById("keys"); if (keys) keys.open ? keys.close() : keys.showModal(); },
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || !press[event.key]) return;
    event.preventDefault();
    const found = press[event.key]();
    if (found) found.focus();
  });
  // A page that nobody sees asks for nothing.
  document.addEventListener("htmx:confirm", (event) => {
    if (document.hidden && event.target.closest("[data-live]")) event.preventDefault();
  });
})();
