// One socket that comes back by itself, and the notice when the session is over.

const OVER = 1008; // the server closes with it, and with the reason, when the session ends
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
const STEADY = 5_000; // a connection that lasted so long was a good one
const STAYED = 5_000; // who is still here so long after a form was sent did not leave

const REASONS = {
  destroyed: ["You logged out", "It was in this browser, perhaps in another tab."],
  revoked: ["Logged out from another device", "Somebody ended this session on their page of devices. If that was not you: this example asks for no password."],
  idle: ["Your session expired", "It was not used for a long time."],
  absolute: ["Your session expired", "A session lasts for two weeks at most."],
  evicted: ["Too many devices", "You logged in on one device more than allowed, and this session was the oldest."],
  reuse: ["Logged out, to be safe", "An old copy of this browser's cookie was used somewhere."],
  anonymous: ["You are not logged in any more", "The session ended while this page was not connected."],
};

/**
 * Open a socket, and again whenever it is lost.
 *
 * opened(send) is called for each connection, heard(news) for each message, and over()
 * once, when the session has ended; it returns the messages that were not sent.
 */
export function live(path, { opened, heard, over }) {
  const status = document.getElementById("connection");
  const again = document.createElement("button"); // not in the status, which is read out
  let socket;
  let openedAt = 0;
  let wait = FIRST_WAIT;
  let timer = 0;
  let leaving = false;
  let missed = null; // how the socket was closed while somebody seemed to leave

  function show(state, text) {
    document.body.dataset.connection = state;
    status.textContent = text;
    again.hidden = state !== "lost";
  }

  function open() {
    clearTimeout(timer);
    timer = 0;
    if (again.hidden) show("connecting", "Connecting…");
    socket = new WebSocket(location.origin.replace(/^http/, "ws") + path);
    socket.onopen = () => {
      openedAt = Date.now();
      show("open", "Connected");
      opened((what) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what));
      });
    };
    socket.onmessage = (event) => heard(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (leaving) missed = event;
      else closed(event);
    };
  }

  function closed(event) {
    if (event.code === OVER) end(event.reason);
    else tryLater();
  }

  function leave() {
    leaving = true;
    setTimeout(() => {
      leaving = false;
      if (missed) closed(missed);
      missed = null;
    }, STAYED);
  }

  function tryLater() {
    if (openedAt && Date.now() - openedAt > STEADY) wait = FIRST_WAIT;
    openedAt = 0;
    show("lost", "Connection lost. Trying again…");
    // Not all at once, when a server has been restarted under many.
    timer = setTimeout(open, wait * (0.5 + Math.random() / 2));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }

  function end(reason) {
    show("over", "Logged out");
    const [title, why] = REASONS[reason] ?? ["This session was ended", "Log in again to go on."];
    const unsent = over();
    const dialog = document.getElementById("ended");
    document.getElementById("ended-reason").textContent = `${OVER} ${reason}`;
    document.getElementById("ended-title").textContent = title;
    document.getElementById("ended-why").textContent = why;
    document.getElementById("unsent").hidden = !unsent.length;
    document.querySelector("#unsent ul").replaceChildren(...unsent.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
    // There is nothing behind it. Browsers close it all the same, at the second Escape.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => location.assign("/login");
    dialog.showModal();
    document.title = `${title} · Foghorn`;
  }

  again.className = "plain";
  again.textContent = "Try now";
  again.onclick = () => retry();
  again.hidden = true;
  status.after(again);
  const retry = () => timer && open();
  addEventListener("online", retry);
  addEventListener("offline", () => socket.close());
  document.addEventListener("visibilitychange", () => document.hidden || retry());
  // Whoever leaves by a form or a link needs no notice on the way out.
  addEventListener("submit", (event) => event.defaultPrevented || leave());
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  open();
}
