// The list of devices, renewed whenever something happens to one of them.

import { live } from "./live.js";

const list = document.getElementById("devices");
const number = document.getElementById("number");
const others = document.getElementById("end-others");

function show(html) {
  // The server has escaped it. Whoever was about to press a button still is.
  const focused = document.activeElement?.value;
  list.innerHTML = html;
  list.querySelector(`button[value="${CSS.escape(focused ?? "")}"]`)?.focus();
  showOthers();
}

function showOthers() {
  others.hidden = !list.querySelector("button");
  const devices = list.querySelectorAll("li").length;
  const text = devices === 1 ? "One device" : `${devices} devices`;
  if (number.textContent !== text) number.textContent = text; // which is read out
}

showOthers();
const me = document.getElementById("content").dataset.name;
live(`/live/devices?as=${encodeURIComponent(me)}`, {
  opened() {},
  heard(news) { show(news.devices); },
  over() {
    document.getElementById("content").remove();
    return [];
  },
});
