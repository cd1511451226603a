// Says when the hub is away, and loads the page anew once the session is over (to sign in) or its job is gone. htmx
// connects again by itself, but only after it has been connected once; before that, we do. Asks before what can't be undone.
const live = document.getElementById("live");
const notice = document.getElementById("connection");
let wasConnected = false;

function away(status) {
  if (status === 401 || status === 404) { location.reload(); return; }
  notice.hidden = false;
  if (!wasConnected) setTimeout(() => htmx.ajax("GET", live.getAttribute("hx-sse:connect"), { source: live }), 2000);
}

document.addEventListener("htmx:before:response", (event) => {
  const status = event.detail.ctx.response.status;
  if (status >= 400) { event.preventDefault(); away(status); }
});
document.addEventListener("htmx:error", () => away());
document.addEventListener("htmx:sse:error", (event) => away(event.detail.status));
document.addEventListener("htmx:sse:after:connection", () => { wasConnected = true; notice.hidden = true; });
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
