// An identity provider of oidc-provider for the check: people log in at its development pages, and
// access tokens for the resource are JWTs. Each SIGHUP gives it a new key.
//
// It must not patch oidc-provider: what a user has to configure stands here.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, algorithm] = [Number(process.argv[2]), process.argv[3] ?? 'RS256'];
const issuer = `http://127.0.0.1:${port}`;
const resource = 'https://receipts.example';
const kinds = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  ES384: ['ec', { namedCurve: 'P-384' }],
  Ed25519: ['ed25519', {}],
  EdDSA: ['ed25519', {}],
};

let number = 0;
function provider() {
  number += 1;
  const [kind, options] = kinds[algorithm];
  const jwk = generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' });
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  return new Provider(issuer, {
    jwks: { keys: [{ ...jwk, kid: `key-${number}`, use: 'sig', alg: algorithm },
      { ...rsa, kid: `other-${number}`, use: 'sig', alg: 'RS256' }] },
    clients: [
      {
        client_id: 'app', token_endpoint_auth_method: 'none', application_type: 'native',
        redirect_uris: ['http://127.0.0.1/callback'], grant_types: ['authorization_code'], response_types: ['code'],
        scope: 'openid receipts:own',
      },
      {
        client_id: 'backend', client_secret: 'backend-secret-of-the-check', grant_types: ['client_credentials'],
        redirect_uris: [], response_types: [], scope: 'receipts:write receipts:members',
      },
    ],
    scopes: ['openid', 'receipts:own', 'receipts:write', 'receipts:members'],
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: 'receipts:own receipts:write receipts:members',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: algorithm } },
        }),
        useGrantedResource: () => true,
      },
    },
    extraTokenClaims: (_, token) => ({ tenant: 'acme', ...(token.kind === 'ClientCredentials' && { service: true }) }),
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    cookies: { keys: ['a key of the check'] },
  }).callback();
}

let answer = provider();
process.on('SIGHUP', () => {
  answer = provider();
  console.log(JSON.stringify({ rotated: number }));
});
createServer((request, response) => answer(request, response)).listen(port, '127.0.0.1', () => {
  console.log(JSON.stringify({ issuer, resource }));
});
