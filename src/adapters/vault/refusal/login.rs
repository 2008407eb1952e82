//! Converts the refusal of a login into an error of the domain, for each method.

use super::{LoginAt, Refusal};
use crate::{
    adapters::vault::login::method::AuthMethod,
    domain::error::{Code, KmsError},
};

/// The remedy for a login from an address that a role does not accept.
const OTHER_ADDRESS: &str = "extend the CIDR list of the role or of the secret ID; the login is tried again within a minute";

impl Refusal {
    /// Returns the error for the refusal (400 or 403) of the login `at`.
    pub(super) fn login_refused(&self, at: LoginAt<'_>) -> KmsError {
        let mount = at.mount;
        let known = match at.method {
            AuthMethod::AppRole => self.of_approle(),
            AuthMethod::Jwt => self.of_jwt(),
            AuthMethod::Kubernetes => self.of_kubernetes(),
            AuthMethod::Cert => self.of_cert(),
            AuthMethod::Spiffe => self.of_spiffe(),
            AuthMethod::TokenFile if self.is_dead_token() => Some(DEAD_TOKEN),
            AuthMethod::TokenFile => Some(NO_LOOKUP),
        };
        let (cause, remedy) = match known {
            Some(known) => known,
            None if self.says("cidr") => {
                ("does not accept a login from this node's address", OTHER_ADDRESS)
            }
            None if self.status == 403 => silent(at.method),
            None => (
                "refuses the login for an unknown reason",
                "see the keeper's audit log; check --auth-mount and the role",
            ),
        };
        let cause = match at.method {
            AuthMethod::TokenFile => cause.to_owned(),
            _ => format!("auth/{mount} {cause}"),
        };
        KmsError::new(Code::LoginRefused, cause, remedy)
    }

    fn of_approle(&self) -> Option<(&'static str, &'static str)> {
        if self.refuses_the_pair() {
            return Some((
                "does not know this pair of role ID and secret ID",
                "write a new secret ID to the file of --approle-secret-id-path, or correct --approle-role-id",
            ));
        }
        self.says("missing secret_id").then_some((
            "has a role that requires a secret ID, and none is configured",
            "give --approle-secret-id-path, or set bind_secret_id=false on the role",
        ))
    }

    fn of_jwt(&self) -> Option<(&'static str, &'static str)> {
        const NEW_JWT: &str = "make the program that writes the file of --jwt-path work again; a new JWT is used at once";
        const CLOCKS: &str =
            "compare the clocks of this node, of the keeper and of the JWT's issuer";
        self.first_of(&[
            (&["token is expired"], "says that the JWT has expired", NEW_JWT),
            (
                &["not yet valid", "(nbf)", "(iat)"],
                "says that the JWT is not valid yet",
                CLOCKS,
            ),
            (
                &["no issued at", "(exp)"],
                "does not accept the times in the JWT",
                "let the issuer set exp and iat in the JWT, and compare the clocks",
            ),
            (
                &["audience"],
                "does not accept the audience of the JWT",
                "set bound_audiences of the role to the audience, or let the issuer use another one",
            ),
            (
                &["subject", "(sub)"],
                "does not accept the subject of the JWT",
                "correct bound_subject of the role, or the identity to which the JWT is issued",
            ),
            (
                &["issuer", "(iss)"],
                "does not accept the issuer of the JWT",
                "correct bound_issuer of the auth mount",
            ),
            (
                &["error validating claims", "bound claim", "claim "],
                "does not accept the claims of the JWT",
                "correct bound_claims and user_claim of the role",
            ),
            (
                &["signature", "verifying token", "malformed", "key id"],
                "cannot verify the signature of the JWT",
                "check that jwt_validation_pubkeys, jwks_url or oidc_discovery_url of the auth mount has the key of the issuer",
            ),
            (NO_ROLE_TEXTS, NO_ROLE, "create the role, or correct --jwt-role"),
            (&["missing role"], NO_ROLE_NAME, "give --jwt-role, or set default_role of the auth mount"),
            (
                &["could not load configuration", "no configuration"],
                NOT_CONFIGURED,
                "write auth/<mount>/config with the keys of the issuer",
            ),
        ])
    }

    fn of_kubernetes(&self) -> Option<(&'static str, &'static str)> {
        self.first_of(&[
            (
                &["service account name not authorized", "namespace not authorized"],
                "does not accept the service account of the JWT",
                "correct bound_service_account_names and bound_service_account_namespaces of the role",
            ),
            (
                &["audience"],
                "does not accept the audience of the JWT",
                "set audience of the role to the audience of the JWT",
            ),
            (NO_ROLE_TEXTS, NO_ROLE, "create the role, or correct --kubernetes-role"),
            (&["missing role"], NO_ROLE_NAME, "give --kubernetes-role"),
        ])
    }

    fn of_cert(&self) -> Option<(&'static str, &'static str)> {
        self.first_of(&[
            (
                &["no chain matching", "failed to match all constraints"],
                "does not accept the client certificate: no role has its authority and allows its names",
                "correct certificate and allowed_* of the role, or --cert-role",
            ),
            (
                &["no client certificate found", "client certificate must be supplied"],
                "received no client certificate",
                "give --tls-client-cert-file; a proxy or load balancer that ends TLS must pass the connection through instead",
            ),
            (
                &["invalid certificate or no client certificate"],
                "does not accept the client certificate, or has no such role",
                "set certificate of the role to the certificate or its authority, and correct --cert-role",
            ),
            (NO_ROLE_TEXTS, NO_ROLE, "create the role, or correct --cert-role"),
        ])
    }

    fn of_spiffe(&self) -> Option<(&'static str, &'static str)> {
        const CLOCKS: &str =
            "compare the clocks of this node, of the keeper and of the SPIRE server";
        self.first_of(&[
            (&["token is expired"], "says that the JWT-SVID has expired", CLOCKS),
            (&["not yet valid", "(nbf)", "(iat)"], "says that the JWT-SVID is not valid yet", CLOCKS),
            (
                &["audience"],
                "does not accept the audience of the JWT-SVID",
                "set bound_audiences of the role to the value of --spiffe-audience",
            ),
            (
                &["subject", "(sub)"],
                "does not accept the SPIFFE ID of this process",
                "set bound_subject of the role to the SPIFFE ID, or correct --spiffe-id",
            ),
            (
                &["issuer", "(iss)"],
                "does not accept the issuer of the JWT-SVID",
                "set bound_issuer of the auth mount to jwt_issuer of the SPIRE server, or to nothing",
            ),
            (
                &["error validating claims", "bound claim", "claim "],
                "does not accept the claims of the JWT-SVID",
                "correct bound_claims of the role, and set its user_claim to sub",
            ),
            (
                &["signature", "verifying token", "malformed", "key id"],
                "cannot verify the signature of the JWT-SVID",
                "check that jwks_url, oidc_discovery_url or jwt_validation_pubkeys of the auth mount has the JWT keys of the trust domain, which SPIRE rotates",
            ),
            (NO_ROLE_TEXTS, NO_ROLE, "create the role, or correct --spiffe-role"),
            (
                &["missing role"],
                NO_ROLE_NAME,
                "give --spiffe-role, or set default_role of the auth mount",
            ),
            (
                &["could not load configuration", "no configuration"],
                NOT_CONFIGURED,
                "write auth/<mount>/config with the JWT keys of the trust domain",
            ),
            (
                &["no chain matching", "failed to match all constraints", "invalid certificate"],
                "does not accept the X.509-SVID: no role has its authority and allows its SPIFFE ID",
                "set certificate of the role to the X.509 bundle of the trust domain and allowed_uri_sans to the SPIFFE ID, and correct --spiffe-role",
            ),
            (
                &["no client certificate found", "client certificate must be supplied"],
                "received no client certificate",
                "pass the connection through where a proxy or load balancer ends TLS",
            ),
        ])
    }

    /// Returns the cause and the remedy of the first row that has a text of this refusal.
    fn first_of(
        &self,
        rows: &[(&[&str], &'static str, &'static str)],
    ) -> Option<(&'static str, &'static str)> {
        let row = rows.iter().find(|(texts, _, _)| self.says_any(texts));
        row.map(|(_, cause, remedy)| (*cause, *remedy))
    }
}

/// Returns the error for a login without a name for the identity.
pub(super) fn without_alias(at: LoginAt<'_>) -> KmsError {
    let (what, remedy) = match at.method {
        AuthMethod::AppRole => (
            "a login without a role ID",
            "give the role ID in --approle-role-id or --approle-role-id-path",
        ),
        AuthMethod::Cert => (
            "a client certificate without a common name",
            "give --tls-client-cert-file a certificate with a common name",
        ),
        AuthMethod::Spiffe => (
            "an SVID without a name",
            "give the registration entry of this process a DNS name, which becomes the common name of its X.509-SVID",
        ),
        AuthMethod::Jwt | AuthMethod::Kubernetes | AuthMethod::TokenFile => {
            ("a login whose claims have no name", "correct user_claim of the role")
        }
    };
    KmsError::new(Code::LoginRefused, format!("auth/{} does not accept {what}", at.mount), remedy)
}

const NO_ROLE_TEXTS: &[&str] = &["could not be found", "invalid role name", "no such role"];
const NO_ROLE: &str = "has no such role";
const NO_ROLE_NAME: &str = "has no default role, and no role is configured";
const NOT_CONFIGURED: &str = "is not configured";
const DEAD_TOKEN: (&str, &str) = (
    "the keeper does not accept the token in the file of --token-file: it has expired or was revoked",
    "make the agent write a new token to the file; it is used at once",
);

const NO_LOOKUP: (&str, &str) = (
    "the token in the file of --token-file may not look itself up",
    "allow read on auth/token/lookup-self in a policy of the token, as the policy default does; check its token_bound_cidrs and its namespace",
);

/// Returns the cause and the remedy of a refusal with 403 and without a reason.
const fn silent(method: AuthMethod) -> (&'static str, &'static str) {
    match method {
        AuthMethod::AppRole => (
            "refuses the login: the role is locked after failed logins, or the mount does not exist",
            "check --auth-mount and --vault-auth-namespace; a lock ends 15 minutes after the last failed login",
        ),
        AuthMethod::Kubernetes => (
            "refuses the login: the reviewing API server rejects the JWT or cannot be reached, this node's address is not in the role's CIDR list, or the mount does not exist",
            "see the keeper's log; check kubernetes_host of the auth mount: an API server that waits for this provider cannot review its login",
        ),
        AuthMethod::Jwt | AuthMethod::Cert | AuthMethod::Spiffe | AuthMethod::TokenFile => (
            "refuses the login: this node's address is not in the role's CIDR list, or the mount does not exist",
            "check --auth-mount, --vault-auth-namespace and token_bound_cidrs of the role",
        ),
    }
}
