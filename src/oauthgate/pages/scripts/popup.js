// The end of a sign-in in a window of its own: tell the page that opened it, and close when that has heard.
// Nothing but the attempt's id and "done" or an error code is said, and to two listeners only: pages of
// this very origin, and an opener of the one origin that the gate found among its own.
"use strict";
(() => {
  const { attempt, opener: origin, channel: name, result } = document.currentScript.dataset;
  const message = { oauthgate: attempt, result };
  // An opener that did not begin this attempt never answers, and so never learns from a closed window
  // that somebody has signed in.
  const heard = (data) => data?.oauthgate === attempt && data.close === true && window.close();
  const channel = new BroadcastChannel(name);
  channel.onmessage = (event) => heard(event.data);
  channel.postMessage(message);
  if (origin && window.opener) {
    window.addEventListener("message", (event) => event.origin === origin && heard(event.data));
    window.opener.postMessage(message, origin);
  }
})();
