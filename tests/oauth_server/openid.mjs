// An independent OpenID Connect server: the tests sign people of a company in through it.
import { Provider } from "oidc-provider";

const [port, callback, inToken] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const server = new Provider(issuer, {
  clients: [
    {
      client_id: "bridge",
      client_secret: "a-secret-that-only-the-test-knows",
      redirect_uris: [callback],
      grant_types: ["authorization_code"],
      response_types: ["code"],
      application_type: "native",
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ["sub", "roles"], email: ["email", "email_verified"], profile: ["name"] },
  conformIdTokenClaims: inToken !== "yes",
  features: { devInteractions: { enabled: true } },
  // A login is `name.role@domain`, or `unverified.role@domain`.
  findAccount: (_context, id) => ({
    accountId: id,
    claims: async () => ({
      sub: id,
      email: id,
      email_verified: !id.startsWith("unverified"),
      name: id.split(".")[0],
      roles: ["staff", id.split("@")[0].split(".")[1]],
    }),
  }),
  cookies: { keys: ["test"] },
});
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
