// Says when the hub is away, and goes to sign in once the session is over. The stream itself is htmx's business.
const notice = document.getElementById("connection");
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail.status === 401) location.reload();
  notice.hidden = false;
});
document.addEventListener("htmx:sse:after:connection", () => { notice.hidden = true; });
