// An independent OAuth 2.0 server: the tests run the whole life of a grant against it.
import { Provider } from "oidc-provider";

const [port, callback] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const server = new Provider(issuer, {
  clients: [
    {
      client_id: "bridge",
      client_secret: "a-secret-that-only-the-test-knows",
      redirect_uris: [callback],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "client_secret_post",
      application_type: "native",
    },
  ],
  pkce: { required: () => true },
  scopes: ["openid", "offline_access", "records"],
  rotateRefreshToken: true,
  features: {
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
  },
  findAccount: (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  cookies: { keys: ["test"] },
});
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
