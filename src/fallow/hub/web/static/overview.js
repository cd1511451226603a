// Says when the hub is away, and goes to sign in once the session is over. htmx connects again by itself, but only after
// it has been connected once; before that, we do.
const live = document.getElementById("live");
const notice = document.getElementById("connection");
let wasConnected = false;

function away(status) {
  if (status === 401) { location.reload(); return; }
  notice.hidden = false;
  if (!wasConnected) setTimeout(() => htmx.ajax("GET", "/live", { source: live }), 2000);
}

document.addEventListener("htmx:before:response", (event) => {
  const status = event.detail.ctx.response.status;
  if (status >= 400) { event.preventDefault(); away(status); }
});
document.addEventListener("htmx:error", () => away());
document.addEventListener("htmx:sse:error", (event) => away(event.detail.status));
document.addEventListener("htmx:sse:after:connection", () => { wasConnected = true; notice.hidden = true; });
