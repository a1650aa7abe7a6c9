// The page: what it shows follows from who is signed in, which only the gate can tell.
import { connect } from "/_oauth/oauthgate.js";

const gate = connect();
const $ = (id) => document.getElementById(id);
let song = null;

/** @param {import("/_oauth/oauthgate.js").Session | null} session */
async function show(session) {
  $("anonymous").hidden = session !== null;
  $("signed-in").hidden = session === null;
  if (session === null) {
    $("title").textContent = "What are you listening to?";
    return;
  }
  const [first] = session.links;
  $("title").textContent = `Hello, ${first?.profile.name ?? first?.profile.username ?? "listener"}`;
  await look();
}

async function look() {
  const reply = await gate.fetch("/api/player");
  const body = await reply.json();
  // 401: Spotify is not linked yet, or not any more.
  $("link").hidden = reply.status !== 401;
  song = reply.ok ? (body?.item ?? null) : null;
  $("song").textContent = song ? `♪ ${song.name} by ${song.artists[0].name}` : reply.ok ? "Silence" : "";
  $("post").hidden = song === null;
}

/** Do what a button says, and say what became of it. */
function on(id, work) {
  $(id).addEventListener("click", async () => {
    $("status").textContent = "";
    try {
      await work();
    } catch (error) {
      $("status").textContent = `That did not work: ${error.code ?? error.message}`;
    }
  });
}

on("popup", async () => show(await gate.loginPopup("twitter")));
on("redirect", () => gate.login("twitter"));
on("link", async () => show(await gate.linkPopup("spotify")));
on("again", look);
on("post", async () => {
  const reply = await gate.fetch("/api/posts", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ text: $("song").textContent }),
  });
  $("status").textContent = (await reply.json()).status === 201 ? "Posted." : "Twitter did not take it.";
});
on("logout", async () => {
  await gate.logout();
  await show(null);
});

gate.subscribe(show);
show(await gate.session());
