// An OAuth 1.0a server (RFC 5849) put together from oauthorize (the three endpoints) and
// passport-http-oauth (signature verification): neither shares a line with what is under test.
//
// Configuration (see README.md for the keys) in SERVER_CONFIG, port in PORT. Everything is kept in
// memory. Prints "ready <base URL>" once it answers.

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import express from 'express';
import session from 'express-session';
import oauthorize from 'oauthorize';
import passport from 'passport';
import { ConsumerStrategy, TokenStrategy } from 'passport-http-oauth';
import { readConfig, serve } from './serve.mjs';

const KEYS = ['accounts', 'clients', 'consent', 'denial', 'request_token_ttl', 'timestamp_window'];

const random = () => randomBytes(24).toString('base64url');

const escapeHtml = (text) => String(text)
  .replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

/** An error that oauthorize's error handler turns into `oauth_problem=<code>`. */
function problem(status, code, advice) {
  return Object.assign(new Error(advice), { status, code });
}

const config = readConfig(KEYS);
const clients = new Map((config.clients ?? []).map((client) => [client.client_id, client]));
const accounts = config.accounts ?? [];
const timestampWindow = config.timestamp_window ?? 300; // seconds either way
const requestTokenTtl = (config.request_token_ttl ?? 600) * 1000; // milliseconds
const requestTokens = new Map(); // token -> {secret, client, callback, account, verifier, expires}
const accessTokens = new Map(); // token -> {secret, client, account}
const nonces = new Map(); // "timestamp nonce" -> the second at which it may be forgotten

function findClient(key, done) {
  const client = clients.get(key);
  return client ? done(null, client, client.client_secret) : done(null, false);
}

function findRequestToken(token) {
  const found = requestTokens.get(token);
  if (found && found.expires < Date.now()) {
    requestTokens.delete(token);
    return undefined;
  }
  return found;
}

/** RFC 5849 section 3.3: a timestamp of the present, and a nonce not seen with it before. */
function checkNonce(timestamp, nonce, done) {
  const now = Math.floor(Date.now() / 1000);
  for (const [seen, until] of nonces) {
    if (until < now) nonces.delete(seen);
  }
  if (!/^[0-9]+$/.test(timestamp) || Math.abs(now - Number(timestamp)) > timestampWindow) {
    return done(problem(401, 'timestamp_refused', `now is ${now}`));
  }
  const key = `${timestamp} ${nonce}`;
  if (nonces.has(key)) return done(null, false);
  nonces.set(key, Number(timestamp) + timestampWindow);
  return done(null, true);
}

passport.use('consumer', new ConsumerStrategy(
  findClient,
  (token, done) => {
    const found = findRequestToken(token);
    return found ? done(null, found.secret) : done(null, false);
  },
  checkNonce,
));
passport.use('token', new TokenStrategy(
  findClient,
  (token, done) => {
    const found = accessTokens.get(token);
    return found ? done(null, found.account, found.secret, { grant: found }) : done(null, false);
  },
  checkNonce,
));

const server = oauthorize.createServer();
server.serializeClient((client, done) => done(null, client.client_id));
server.deserializeClient((key, done) => done(null, clients.get(key) ?? false));

function issueRequestToken(client, callback, done) {
  if (!callback) return done(problem(400, 'parameter_absent', 'oauth_callback'));
  if (!(client.redirect_uris ?? []).includes(callback)) {
    return done(problem(403, 'parameter_rejected', 'oauth_callback is not registered'));
  }
  const token = random();
  const secret = random();
  requestTokens.set(token, { secret, client, callback, expires: Date.now() + requestTokenTtl });
  return done(null, token, secret);
}

function same(given, expected) {
  const [a, b] = [given, expected].map((text) => createHash('sha256').update(text).digest());
  return timingSafeEqual(a, b);
}

function verify(token, verifier, done) {
  const found = findRequestToken(token);
  if (!found?.verifier) return done(problem(401, 'permission_unknown', 'not authorized yet'));
  if (!verifier) return done(problem(400, 'parameter_absent', 'oauth_verifier'));
  return done(null, same(String(verifier), found.verifier));
}

function issueAccessToken(client, requestToken, done) {
  const found = findRequestToken(requestToken);
  // The signature only proves that the client knows the secrets; whose token it is stands here.
  if (!found || found.client !== client) return done(null, false);
  requestTokens.delete(requestToken);
  const token = `${found.account.user_id}-${random()}`;
  const secret = random();
  accessTokens.set(token, { secret, client, account: found.account });
  const { user_id, screen_name } = found.account;
  return done(null, token, secret, { user_id, screen_name });
}

function validateAuthorization(token, done) {
  const found = findRequestToken(token);
  if (!found || found.verifier || found.denied) return done(null, false);
  return done(null, found.client, found.callback);
}

function issueVerifier(token, account, done) {
  const found = findRequestToken(token);
  if (!found) return done(problem(401, 'token_expired', 'request token'));
  if (!account) return done(problem(400, 'parameter_rejected', 'no such account'));
  found.account = account;
  found.verifier = random();
  return done(null, found.verifier);
}

/** Who signs in: the account named by `login` (its screen_name), else the first one. */
function chooseAccount(login) {
  return login ? accounts.find((account) => account.screen_name === login) : accounts[0];
}

function consentPage(req, res) {
  const options = accounts.map((account) => {
    const name = escapeHtml(account.screen_name);
    return `<option value="${name}">${name}</option>`;
  });
  res.type('html').send(`<!DOCTYPE html><title>Authorize</title>
<form method="post" action="/authorize">
<p>${escapeHtml(req.oauth.client.title ?? req.oauth.client.client_id)} wants to use your account.</p>
<input type="hidden" name="transaction_id" value="${escapeHtml(req.oauth.transactionID)}">
<select name="login">${options.join('')}</select>
<button type="submit" name="allow" value="1">Allow</button>
<button type="submit" name="cancel" value="1">Cancel</button>
</form>`);
}

/** A refusal ends the request token; it is told in the library's way or in Twitter's. */
function denied(req, res, next) {
  if (req.oauth.res?.allow !== false) return next();
  const { callbackURL, authz } = req.oauth;
  if (callbackURL === 'oob') return res.type('text').send('Access was denied.');
  const target = new URL(callbackURL);
  if (config.denial === 'denied') target.searchParams.set('denied', authz.token);
  else target.searchParams.set('oauth_problem', 'user_refused');
  return res.redirect(target.href);
}

function forgetDenied(req, res, next) {
  if (req.body.cancel) {
    const found = findRequestToken(req.oauth.authz.token);
    if (found) found.denied = true;
  }
  next();
}

// What the client sent, byte for byte, whatever its type. Only a form is decoded before the
// signature is checked, because only a form's fields are part of it (RFC 5849 section 3.4.1.3.1).
const keepRaw = (req, res, buffer) => { req.raw = buffer; };
const bodies = [
  express.urlencoded({ extended: false, verify: keepRaw, limit: '16mb' }),
  express.raw({ type: () => true, verify: keepRaw, limit: '16mb' }),
];

/** OAuth Request Body Hash 1.0 (draft): a body that is no form is covered only by this. */
function checkBodyHash(req, res, next) {
  const match = /oauth_body_hash="([^"]*)"/.exec(req.headers.authorization ?? '');
  const given = match ? decodeURIComponent(match[1]) : req.query.oauth_body_hash;
  if (given === undefined) return next();
  const hash = createHash('sha1').update(req.raw ?? Buffer.alloc(0)).digest('base64');
  return next(hash === given ? undefined : problem(401, 'body_hash_invalid', 'oauth_body_hash'));
}

/** passport-http-oauth looks up token and client apart; that they belong together is checked here. */
function checkOwner(req, res, next) {
  const { grant, client } = req.authInfo;
  return next(grant.client === client ? undefined : problem(401, 'token_rejected', 'other client'));
}

const protect = [
  ...bodies,
  passport.authenticate('token', { session: false }),
  checkOwner,
  checkBodyHash,
];

function me(req, res, next) {
  if (req.method === 'GET') return res.json(req.user);
  let received = req.body ?? null;
  if (Buffer.isBuffer(received)) {
    if (!req.is('json')) return next(problem(415, 'parameter_rejected', 'a form or JSON'));
    try {
      received = JSON.parse(received);
    } catch (error) {
      return next(problem(400, 'parameter_rejected', error.message));
    }
  }
  return res.json({ ...req.user, received });
}

function echo(req, res) {
  const raw = req.raw ?? Buffer.alloc(0);
  res.json({
    method: req.method,
    path: req.path,
    query: [...new URL(req.originalUrl, 'http://localhost').searchParams],
    content_type: req.headers['content-type'] ?? null,
    body_length: raw.length,
    body_sha256: createHash('sha256').update(raw).digest('hex'),
    user_id: req.user.user_id,
  });
}

const app = express();
app.disable('x-powered-by');
app.use(passport.initialize());
app.use('/authorize', session({ secret: random(), resave: false, saveUninitialized: false }));
app.use('/authorize', express.urlencoded({ extended: false }));

const clientAuthentication = [...bodies, passport.authenticate('consumer', { session: false })];
app.post('/request_token', clientAuthentication, server.requestToken(issueRequestToken));
app.post('/access_token', clientAuthentication, server.accessToken(verify, issueAccessToken));

const decide = [
  (req, res, next) => { req.user = chooseAccount(req.body.login); next(); },
  forgetDenied,
  server.userDecision({ loadTransaction: false, redirectOnCancel: false }, issueVerifier),
  denied,
  (req, res) => res.type('text').send(req.oauth.verifier), // oob: the person types it over
];
// The consent page carries the decision in its form; otherwise the link itself decides.
app.get('/authorize', server.userAuthorization(validateAuthorization), (req, res, next) => {
  if (config.consent === 'page') return consentPage(req, res);
  req.body = { login: req.query.login, cancel: req.query.deny };
  return next();
}, decide);
const [loadTransaction] = server.userDecision(issueVerifier);
app.post('/authorize', loadTransaction, (req, res, next) => {
  next(req.oauth ? undefined : problem(400, 'parameter_rejected', 'transaction_id'));
}, decide);

app.all('/api/me', protect, (req, res, next) => {
  if (['GET', 'POST', 'PUT'].includes(req.method)) return me(req, res, next);
  return next(problem(405, 'method_not_allowed', req.method));
});
app.all(['/api/echo', '/api/echo/*rest'], protect, echo);

app.post('/_test/revoke', (req, res) => {
  res.status(accessTokens.delete(req.query.token) ? 204 : 404).end();
});

app.use(server.errorHandler());

serve(() => app);
