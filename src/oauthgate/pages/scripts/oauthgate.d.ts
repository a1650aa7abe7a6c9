/** The types of `oauthgate.js`, which the gate serves beside it. */

export interface Profile {
  id: string;
  username: string | null;
  name: string | null;
  email: string | null;
  email_verified: boolean;
  picture: string | null;
  gender: string | null;
}

export interface Link {
  provider: string;
  account_id: string;
  label: string;
  profile: Profile;
  scope: string[];
  state: "active" | "reauth_required";
}

/** What `GET /session` tells; `expires_at` is in Unix seconds. */
export interface Session {
  user_id: string;
  expires_at: number;
  csrf_token: string;
  links: Link[];
}

export interface Provider {
  name: string;
  title: string;
  login_url: string;
  link_url: string;
}

/** The 401 of a handler whose service is not linked. */
export interface LinkRequired {
  error: "link_required";
  provider: string;
  url: string;
  reason: "not_linked" | "reauth_required" | "scope";
}

export interface GateOptions {
  /** Where the gate's routes are; needed only where the module is not loaded from there. */
  url?: string;
}

export interface RedirectOptions {
  /** The path of the gate's site to come back to; this page by default. */
  next?: string;
  /** `then`, `prompt`, `login_hint`, or a field that the provider's table carries. */
  [field: string]: string | undefined;
}

export interface PopupOptions {
  signal?: AbortSignal;
  /** The size of the window in pixels. */
  width?: number;
  height?: number;
}

export type PopupFields = PopupOptions & {
  [field: string]: string | number | AbortSignal | undefined;
};

export interface LogoutOptions {
  /** All sessions of the user. */
  everywhere?: boolean;
  /** `false`: do not end the session at the provider. */
  provider?: boolean;
  /** `false`: do not go to the provider; the address is returned. */
  navigate?: boolean;
}

/**
 * `code` is one of the gate's error codes, or `popup_blocked`, `popup_closed`, `popup_timeout`,
 * `popup_aborted`, or `unreadable` for an answer that is not the gate's.
 */
export class GateError extends Error {
  constructor(code: string, description?: string, status?: number);
  code: string;
  /** 0 when no answer of the gate's is behind it. */
  status: number;
}

export interface Gate {
  /** Where the gate's routes are, with a slash at the end. */
  readonly url: string;
  /** Who is signed in; null for nobody. Always asks. */
  session(): Promise<Session | null>;
  providers(): Promise<Provider[]>;
  /** Leave this page to sign in, and come back. */
  login(provider: string, options?: RedirectOptions): void;
  /** Sign in in a window of its own. Call it from a click. Rejects with a `GateError`. */
  loginPopup(provider: string, options?: PopupFields): Promise<Session | null>;
  /** Leave this page to link an account, given its provider's name or a handler's 401. */
  link(what: string | LinkRequired, options?: RedirectOptions): Promise<void>;
  linkPopup(what: string | LinkRequired, options?: PopupFields): Promise<Session | null>;
  /** Sign out; goes on to the provider where it has a session to end. Resolves to that address. */
  logout(options?: LogoutOptions): Promise<string | null>;
  /** `fetch` with the session's cookie, and its CSRF token where something changes on this site. */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** Be told when somebody signed in or out in another tab. Returns what ends it. */
  subscribe(listener: (session: Session | null) => void): () => void;
}

/** The gate that serves this module, or the one at `options.url`. */
export function connect(options?: GateOptions): Gate;
