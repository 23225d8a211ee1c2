// A room: who is in it, what is said, and what is on its way.

import { live } from "./live.js";

const main = document.getElementById("content");
const log = document.getElementById("log");
const list = document.getElementById("lines");
const form = document.getElementById("say");
const field = document.getElementById("text");
const refused = document.getElementById("refused");
const room = Number(main.dataset.room);
const me = main.dataset.name;
const HUES = 6;
const TOGETHER = 300; // seconds: lines of one person within them share a heading

const pending = new Map(); // nonce -> { text, item }, until it comes back as a line
let newest = 0;
let told = false;
let last = null;
let send = null;
let returned = ""; // what was refused, at the beginning of the field

// Everything that people typed becomes text of an element, never markup.
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function avatar(name) {
  const made = element("span", "avatar", [...name][0].toUpperCase());
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  made.dataset.hue = hash % HUES;
  made.ariaHidden = "true";
  return made;
}

function clock(seconds) {
  const when = new Date(seconds * 1000);
  const today = when.toDateString() === new Date().toDateString();
  const day = today ? {} : { day: "numeric", month: "short" };
  const made = element("time", "", when.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" }));
  made.dateTime = when.toISOString();
  return made;
}

function item({ name, text, at }) {
  const made = element("li", name === me ? "line mine" : "line");
  if (last?.name === name && at - last.at < TOGETHER) made.classList.add("more");
  else {
    const heading = element("p", "by");
    heading.append(element("b", "", name === me ? "You" : name), " ", clock(at));
    made.append(avatar(name), heading);
  }
  made.append(element("p", "text", text));
  return made;
}

function settle(nonce) {
  pending.get(nonce)?.item.remove();
  pending.delete(nonce);
}

function addLine(line) {
  if (line.id <= newest) return; // heard before the connection was lost
  newest = line.id;
  settle(line.nonce);
  const made = item(line);
  last = line;
  const waiting = list.querySelector(".waiting");
  if (waiting) waiting.before(made);
  else list.append(made);
}

function showRooms(rooms) {
  document.getElementById("rooms").replaceChildren(...rooms.map(({ id, name, people }) => {
    const made = document.createElement("li");
    const link = element("a", "");
    link.href = `/rooms/${id}`;
    if (id === room) link.ariaCurrent = "page";
    link.append(element("span", "", name));
    if (people) {
      const count = element("span", "count", people);
      count.append(element("span", "sr-only", people === 1 ? " person" : " people"));
      link.append(count);
    }
    made.append(link);
    return made;
  }));
  if (!told) showThisRoom();
  told = true;
}

function showThisRoom() {
  document.querySelector("#rooms [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function showPeople(people) {
  document.getElementById("people-title").textContent = `Here now: ${people.length}`;
  document.getElementById("people").replaceChildren(...people.map((name) => {
    const made = document.createElement("li");
    made.append(avatar(name), element("span", "person", name === me ? `${name} (you)` : name));
    return made;
  }));
}

function transmit(nonce) {
  send?.({ say: pending.get(nonce).text, nonce });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = field.value.trim();
  if (!text) return;
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  const nonce = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const made = element("li", "line mine more waiting");
  made.append(element("p", "text", text));
  list.append(made);
  pending.set(nonce, { text, item: made });
  field.value = returned = "";
  refused.hidden = true;
  transmit(nonce);
  toBottom();
});

function refuse(nonce, why) {
  const gone = pending.get(nonce);
  if (!gone) return;
  settle(nonce);
  refused.textContent = `Not sent: ${why}`;
  refused.hidden = false;
  putBack(gone.text);
}

// Several go back in the order in which they were sent, before what is being typed.
function putBack(text) {
  if (!field.value.startsWith(returned)) returned = "";
  const typed = field.value.slice(returned.length).trim();
  returned = [returned, text].filter(Boolean).join(" ");
  field.value = [returned, typed].filter(Boolean).join(" ");
}

// On a phone the rooms are one row that scrolls sideways.
document.querySelector(".new-room").addEventListener("toggle", (event) => {
  if (event.target.open) document.getElementById("room-to-open").focus();
});

const isAtBottom = () => log.scrollHeight - log.scrollTop - log.clientHeight < 120;
const toBottom = () => { log.scrollTop = log.scrollHeight; };

showThisRoom();
live(`/live/room?as=${encodeURIComponent(me)}`, {
  opened(sender) {
    sender({ enter: room });
    send = sender;
    // Sent before the connection was lost, or not: the server takes each of them once.
    for (const nonce of pending.keys()) transmit(nonce);
  },
  heard(news) {
    const follow = isAtBottom();
    if (news.lines) news.lines.forEach(addLine);
    if (news.rooms) showRooms(news.rooms);
    if (news.people) showPeople(news.people);
    if (news.refused) refuse(news.refused, news.why);
    if (news.kept) settle(news.kept); // sent before, and too long ago to be told again
    document.getElementById("quiet").hidden = list.children.length > 0;
    if (follow) toBottom();
  },
  over() {
    send = null;
    const unsent = [...pending.values()].map(({ text }) => text);
    if (field.value.trim()) unsent.push(field.value.trim());
    main.remove(); // nobody who sits down here may read on
    return unsent;
  },
});
addEventListener("resize", toBottom);
