// The page as it is shown by the shop works without this script. With it, the cart is shown anew whenever it changes,
// whoever has changed it: another tab of this shopper, say. The rest of the page stays, with what is about to be clicked.
"use strict";

const cart = () => document.querySelector("#cart");
let asked = 0;

// show puts the cart of an answer in the place of the one that is shown, unless a newer answer was asked for.
async function show(asking) {
  const mine = ++asked;
  const page = new DOMParser().parseFromString(await (await asking).text(), "text/html");
  const newer = page.querySelector("#cart");
  if (newer && mine === asked) cart().replaceWith(newer);
}

if (cart()) {
  const changed = (event) => {
    if (event.lastEventId !== cart().dataset.etag) show(fetch("/"));
  };
  const events = new EventSource("/events");
  events.addEventListener("cart", changed);
  events.addEventListener("gone", changed);
}

// A second click on "Add" within half a second is the same click. It goes out under the same key, so the thing is added
// once, whichever of the two arrives first.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  const key = form.elements.key;
  if (!cart() || !form.matches(".add")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form, event.submitter));
  if (!form.renewing) {
    form.renewing = setTimeout(() => {
      key.value = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
      form.renewing = undefined;
    }, 500);
  }
  const answer = await fetch(form.action, {method: "POST", body}).catch(() => undefined);
  if (answer?.ok) show(answer);
  else form.submit(); // says what is wrong; under the same key it does nothing twice
});
