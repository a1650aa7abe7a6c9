// panva's oidc-provider, a certified OpenID provider, as the far end of the tests.
//
// Configuration (see README.md for the keys) in SERVER_CONFIG, port in PORT. Everything is kept in
// memory. Prints "ready <issuer>" once it answers.

import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';
import { readConfig, serve } from './serve.mjs';

const KEYS = [
  'accounts', 'always_refresh_token', 'clients', 'configuration', 'dpop_nonce', 'jwks',
  'loopback_fetch', 'pkce_required', 'require_par', 'rotate_refresh_token', 'signing_algs', 'ttl',
];

const KEY_MAKERS = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};

function generateJwks(algs) {
  return {
    keys: algs.map((alg) => {
      const make = KEY_MAKERS[alg];
      if (!make) throw new Error(`signing_algs: ${alg}; known: ${Object.keys(KEY_MAKERS)}`);
      const jwk = make().privateKey.export({ format: 'jwk' });
      return { ...jwk, alg, use: 'sig', kid: `${alg}-${randomUUID()}` };
    }),
  };
}

/** Deep merge of plain objects; anything else in `over` replaces. */
function merge(base, over) {
  const plain = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
  if (!plain(base) || !plain(over)) return over;
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    merged[key] = key in base ? merge(base[key], value) : value;
  }
  return merged;
}

function configure(config) {
  const accounts = new Map((config.accounts ?? []).map((claims) => [claims.sub, claims]));
  const required = config.pkce_required ?? true;
  const rotate = config.rotate_refresh_token ?? true;

  const configuration = {
    clients: config.clients ?? [],
    jwks: config.jwks ?? generateJwks(config.signing_algs ?? ['RS256', 'ES256', 'EdDSA']),
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    pkce: { required: () => required },
    rotateRefreshToken: () => rotate,
    scopes: ['openid', 'offline_access', 'profile', 'email'],
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'given_name', 'family_name', 'nickname', 'preferred_username', 'picture',
        'locale', 'zoneinfo', 'website', 'updated_at'],
    },
    // HS256 besides the asymmetric ones: signed with the client's secret, no key in the JWKS.
    enabledJWA: {
      idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519', 'HS256'],
    },
    ttl: {
      AccessToken: 3600,
      AuthorizationCode: 60,
      ClientCredentials: 600,
      DeviceCode: 600,
      Grant: 14 * 86400,
      IdToken: 3600,
      Interaction: 3600,
      RefreshToken: 14 * 86400,
      Session: 14 * 86400,
      ...config.ttl,
    },
    features: {
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      pushedAuthorizationRequests: {
        enabled: true,
        requirePushedAuthorizationRequests: config.require_par ?? false,
      },
      dPoP: {
        enabled: true,
        nonceSecret: randomBytes(32),
        requireNonce: () => config.dpop_nonce ?? false,
      },
    },
    findAccount(ctx, sub) {
      const claims = accounts.get(sub);
      return claims && { accountId: sub, claims: () => claims };
    },
  };

  if (config.always_refresh_token) {
    // As most providers that are not OpenID providers do: no offline_access, no prompt=consent.
    configuration.issueRefreshToken = (ctx, client) => client.grantTypeAllowed('refresh_token');
    configuration.expiresWithSession = () => false;
  }
  if (config.loopback_fetch) {
    // The library refuses to call loopback addresses (SSRF); jwks_uri and back-channel logout of
    // a client under test live there.
    configuration.fetch = (url, { dispatcher, ...options }) => fetch(url, options);
  }
  return merge(configuration, config.configuration ?? {});
}

const config = readConfig(KEYS);
serve((issuer) => {
  const provider = new Provider(issuer, configure(config));
  provider.on('server_error', (ctx, error) => console.error('server_error', error));
  for (const event of ['authorization.error', 'grant.error', 'revocation.error', 'userinfo.error',
    'introspection.error', 'end_session.error', 'pushed_authorization_request.error',
    'backchannel.error']) {
    // `error_detail` says what the answer to the client leaves out; it carries no token.
    provider.on(event, (ctx, error) => {
      console.error(event, error.error ?? error.message, error.error_detail ?? '');
    });
  }
  return provider.callback();
});
