// The gate's routes for a page's own script: who is signed in, signing in and out, and calls that carry
// what the gate wants to see. The session is a cookie that no script can read, the tokens of linked
// services stay on the server: there is none in here to be lost.

/** @import { Gate, GateOptions, PopupOptions, Session } from "./oauthgate.d.ts" */

/** The path that the gate answers below; the gate writes its own into what it serves. */
const PREFIX = "/_oauth";
/** Methods that change nothing (RFC 9110 section 9.2.1), and so carry no CSRF token. */
const SAFE = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);
const CLOSED_CHECK = 400; // ms between two looks whether the window is still there
const CUT_CHECK = 3000; // ms between two questions while nothing can be heard from it
const POPUP_TIMEOUT = 10 * 60 * 1000; // ms, as long as the gate waits for half of a sign-in

/** What the gate refused, by its code, or why a window gave no answer. */
export class GateError extends Error {
  /**
   * @param {string} code
   * @param {string} [description]
   * @param {number} [status] 0 when no answer of the gate's is behind it
   */
  constructor(code, description = code, status = 0) {
    super(description);
    this.name = "GateError";
    this.code = code;
    this.status = status;
  }
}

/**
 * The gate that serves this module, or the one at `options.url`.
 *
 * @param {GateOptions} [options]
 * @returns {Gate}
 */
export function connect(options = {}) {
  const base = new URL(options.url ?? "./", options.url ? location.href : import.meta.url);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const mount = base.pathname.slice(0, -1).replace(new RegExp(`${PREFIX}$`), "");
  const channel = new BroadcastChannel(`oauthgate:${base.pathname.slice(0, -1)}`);
  /** @type {string | null | undefined} undefined: not asked yet */
  let csrf;
  /** @type {string | null} whose it is, as this page was last told */
  let user = null;
  /** The attempts of this very page, which hears of their end by their promise. */
  const own = new Set();

  /** @param {string} route @param {RequestInit} [init] */
  async function ask(route, init = {}) {
    const reply = await fetch(new URL(route, base), {
      ...init,
      credentials: "include",
      cache: "no-store",
      headers: { accept: "application/json", ...init.headers },
    });
    return { reply, body: await reply.json().catch(() => ({})) };
  }

  /** @param {Response} reply @param {any} body */
  const refusal = (reply, body) =>
    new GateError(body.error ?? "unreadable", body.error_description, reply.status);

  /** @returns {Promise<Session | null>} */
  async function session() {
    const { reply, body } = await ask("session");
    if (!reply.ok && reply.status !== 401) throw refusal(reply, body);
    csrf = body.csrf_token ?? null;
    user = body.user_id ?? null;
    return reply.ok ? body : null;
  }

  /**
   * Whether a refused call is worth another try: the same person has signed in anew in another tab, and
   * so has another CSRF token. What somebody else's page asked for is not done for who is there now.
   *
   * @param {string | null | undefined} used @param {string | null} before
   */
  async function renewed(used, before) {
    await session();
    return Boolean(csrf) && csrf !== used && (before === null || before === user);
  }

  /** A changing POST to one of the gate's routes. @param {string} route @param {object} fields */
  async function post(route, fields) {
    for (let again = true; ; again = false) {
      if (csrf === undefined) await session();
      const headers = { "content-type": "application/json", ...(csrf && { "x-csrf-token": csrf }) };
      const { reply, body } = await ask(route, { method: "POST", headers, body: JSON.stringify(fields) });
      if (reply.ok) return body;
      if (!again || body.error !== "csrf_failed" || !(await renewed(csrf, user))) {
        throw refusal(reply, body);
      }
    }
  }

  /** Where to come back to: a path of the gate's site, this page if it is one. @param {string} [next] */
  function returning(next) {
    if (next !== undefined) return next;
    if (location.origin !== base.origin) return "/";
    const path = location.pathname;
    return (path.startsWith(`${mount}/`) ? path.slice(mount.length) : "/") + location.search;
  }

  /** @param {string} provider @param {Record<string, string>} fields */
  function loginUrl(provider, fields) {
    const url = new URL(`${encodeURIComponent(provider)}/login`, base);
    url.search = new URLSearchParams(fields).toString();
    return url.href;
  }

  function changed() {
    channel.postMessage({ oauthgate: "", result: "changed" });
  }

  /**
   * Open a window, wait for the gate's page at its end, and ask who is signed in then. Whatever the
   * window says is a hint only: the answer is the gate's own.
   *
   * @param {(attempt: string) => string | Promise<string>} address
   * @param {PopupOptions} options
   * @returns {Promise<Session | null>}
   */
  function popup(address, { signal, width = 480, height = 720 } = {}) {
    const attempt = crypto.randomUUID();
    own.add(attempt);
    const left = Math.max(0, screenX + (outerWidth - width) / 2);
    const top = Math.max(0, screenY + (outerHeight - height) / 2);
    const size = `popup,width=${width},height=${height},left=${left},top=${top}`;
    // At once, while the click still allows it; the address may have to be asked for first.
    const opened = open("about:blank", "_blank", size);
    if (!opened) return Promise.reject(new GateError("popup_blocked", "the browser opened no window"));
    return new Promise((resolve, reject) => {
      const ended = new AbortController();
      /** @type {number} */
      let timer;
      let before = "";
      /** @param {GateError | null} error @param {Session | null} [found] */
      const settle = (error, found = null) => {
        if (ended.signal.aborted) return;
        ended.abort();
        clearTimeout(timer);
        clearTimeout(limit);
        opened.close();
        error ? reject(error) : resolve(found);
        changed();
      };
      const limit = setTimeout(() => {
        settle(new GateError("popup_timeout", "the sign-in took too long"));
      }, POPUP_TIMEOUT);
      /** @param {any} data */
      const told = (data) => {
        if (data?.oauthgate !== attempt || typeof data.result !== "string") return;
        // A window that a provider's opener policy cut off is not ours to close any more, but hears.
        const close = { oauthgate: attempt, close: true };
        channel.postMessage(close);
        if (!opened.closed) opened.postMessage(close, base.origin);
        if (data.result !== "done") settle(new GateError(data.result));
        else session().then((found) => settle(null, found), settle);
      };
      const heard = { signal: ended.signal };
      channel.addEventListener("message", (event) => told(event.data), heard);
      addEventListener("message", (event) => event.origin === base.origin && told(event.data), heard);
      const aborted = () => settle(new GateError("popup_aborted"));
      signal?.addEventListener("abort", aborted, heard);

      /** Whether somebody is signed in otherwise than before; then that is the answer. */
      const asked = async () => {
        const found = await session().catch(() => null);
        const now = JSON.stringify([found?.csrf_token, found?.links]);
        if (found && now !== before) settle(null, found);
      };
      const look = async () => {
        let pause = CLOSED_CHECK;
        if (opened.closed) {
          // Closed by its person, or cut off by a provider's opener policy and still there: then it is
          // where they look, and this page is not.
          const here = document.hasFocus();
          await asked();
          if (here) settle(new GateError("popup_closed", "the window was closed"));
          pause = CUT_CHECK;
        }
        if (!ended.signal.aborted) timer = setTimeout(look, pause);
      };
      (async () => {
        if (signal?.aborted) return aborted();
        const known = await session();
        before = JSON.stringify([known?.csrf_token, known?.links]);
        const target = await address(attempt);
        if (ended.signal.aborted) return;
        if (opened.closed) throw new GateError("popup_closed", "the window was closed");
        opened.location.replace(target);
        timer = setTimeout(look, CLOSED_CHECK);
      })().catch(settle);
    });
  }

  /** @param {string} attempt */
  const popupFields = (attempt) => ({ popup: attempt, opener: location.origin });

  /** The name and the sealed scope of a 401 `link_required`, or of a plain name. @param {any} what */
  function wanted(what) {
    if (typeof what === "string") return { provider: what };
    const ask = what.url && new URL(what.url).searchParams.get("ask");
    return { provider: what.provider, ...(ask && { ask }) };
  }

  return {
    url: base.href,
    session,

    async providers() {
      const { reply, body } = await ask("providers");
      if (!reply.ok) throw refusal(reply, body);
      return body.providers;
    },

    login(provider, { next, ...fields } = {}) {
      location.assign(loginUrl(provider, { next: returning(next), ...fields }));
    },

    loginPopup(provider, { signal, width, height, ...fields } = {}) {
      return popup((attempt) => loginUrl(provider, { ...fields, ...popupFields(attempt) }), {
        signal,
        width,
        height,
      });
    },

    async link(what, { next, ...fields } = {}) {
      const { provider, ...more } = wanted(what);
      const values = { next: returning(next), ...more, ...fields };
      const body = await post(`${encodeURIComponent(provider)}/link`, values);
      location.assign(body.authorization_url);
    },

    linkPopup(what, { signal, width, height, ...fields } = {}) {
      const { provider, ...more } = wanted(what);
      return popup(
        async (attempt) => {
          const values = { ...more, ...fields, ...popupFields(attempt) };
          return (await post(`${encodeURIComponent(provider)}/link`, values)).authorization_url;
        },
        { signal, width, height },
      );
    },

    async logout({ everywhere = false, provider = true, navigate = true } = {}) {
      const body = await post("logout", { everywhere, ...(!provider && { provider_logout: "0" }) });
      csrf = undefined;
      changed();
      // The session at the provider ends where the browser goes, not where a script asks.
      if (navigate && body.end_session_url) location.assign(body.end_session_url);
      return body.end_session_url;
    },

    async fetch(input, init = {}) {
      for (let again = true; ; again = false) {
        const request = new Request(input instanceof Request ? input.clone() : input, {
          credentials: "include",
          ...init,
        });
        // The token is for this site's handlers and for nobody else's server.
        if (new URL(request.url).origin === base.origin && !SAFE.has(request.method)) {
          if (csrf === undefined) await session();
          if (csrf && !request.headers.has("x-csrf-token")) request.headers.set("x-csrf-token", csrf);
        }
        const [used, before] = [csrf, user];
        const reply = await fetch(request);
        const stream = init.body instanceof ReadableStream; // it can be read once
        if (!again || stream || (reply.status !== 401 && reply.status !== 403)) return reply;
        if (used === undefined) return reply;
        if (!(await renewed(used, before).catch(() => false))) return reply;
      }
    },

    subscribe(listener) {
      const ended = new AbortController();
      const tell = async () => listener(await session());
      const options = { signal: ended.signal };
      channel.addEventListener(
        "message",
        ({ data }) => typeof data?.result === "string" && !own.has(data.oauthgate) && tell(),
        options,
      );
      // A page out of the browser's memory shows who was signed in when it was left.
      addEventListener("pageshow", (event) => event.persisted && tell(), options);
      return () => ended.abort();
    },
  };
}
