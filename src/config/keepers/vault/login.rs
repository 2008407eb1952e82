//! Reads the settings of the login.

use std::{path::PathBuf, time::Duration};

use super::flags;
use crate::{
    adapters::{
        spiffe::settings as spiffe,
        vault::{
            key_path::{MountPath, Namespace},
            login::{
                LoginSettings,
                approle::{AppRoleSettings, RoleId},
                cert::CertSettings,
                credential_text,
                jwt::JwtSettings,
                method::{AuthMethod, MethodSettings},
                spiffe::{SpiffeLoginSettings, Svid},
                token_file::TokenFileSettings,
            },
        },
    },
    config::reading::Reading,
    ports::workload_identity::AgentSettings,
};

/// The longest role ID or role name, in bytes.
const ROLE_MAX: usize = 4_096;

/// Returns the settings, or `None` after an error. All errors are added to `reading`.
pub(super) fn read(reading: &mut Reading<'_>) -> Option<LoginSettings> {
    let method = method(reading);
    let mount = method.and_then(|method| mount(reading, method));
    let namespace = namespace(reading);
    let (least, most) = (Duration::from_secs(1), Duration::from_mins(5));
    let timeout = reading.duration("login-timeout", least, most);
    let method = method?;
    let settings = match method {
        AuthMethod::AppRole => approle(reading).map(MethodSettings::AppRole),
        AuthMethod::Jwt => jwt(reading).map(MethodSettings::Jwt),
        AuthMethod::Kubernetes => kubernetes(reading).map(MethodSettings::Kubernetes),
        AuthMethod::Cert => cert(reading).map(MethodSettings::Cert),
        AuthMethod::Spiffe => spiffe_login(reading).map(MethodSettings::Spiffe),
        AuthMethod::TokenFile => token_file(reading).map(MethodSettings::TokenFile),
    };
    let others = flags::of_methods().filter(|(of, _)| *of != method.as_str());
    let names = others.flat_map(|(_, flags)| flags).map(|flag| flag.name);
    let ignored = names.filter(|name| reading.given(name).is_some()).collect();
    Some(LoginSettings {
        mount: mount?,
        namespace: namespace?,
        timeout: timeout?,
        method: settings?,
        ignored,
    })
}

/// Reads the namespace of the login.
pub(super) fn namespace(reading: &mut Reading<'_>) -> Option<Namespace> {
    match reading.text("vault-auth-namespace") {
        "" => Namespace::parse(reading.text("vault-namespace")).ok(),
        _ => reading.parsed("vault-auth-namespace", Namespace::parse),
    }
}

/// Returns the mount if its secret IDs are wrapped. All errors are added to `reading`.
pub(super) fn wrapped_at(reading: &mut Reading<'_>) -> Option<MountPath> {
    let method = method(reading);
    let wrapped = reading.boolean("approle-secret-id-wrapped");
    let mount = mount(reading, method?);
    mount.filter(|_| wrapped == Some(true) && method == Some(AuthMethod::AppRole))
}

fn method(reading: &mut Reading<'_>) -> Option<AuthMethod> {
    reading.parsed("auth-method", |text| {
        let known = AuthMethod::ALL.into_iter().find(|method| method.as_str() == text);
        known.ok_or_else(|| {
            let names = AuthMethod::ALL.map(AuthMethod::as_str).join(", ");
            format!("{text:?} is not a known auth method; write one of {names}")
        })
    })
}

fn mount(reading: &mut Reading<'_>, method: AuthMethod) -> Option<MountPath> {
    match reading.text("auth-mount") {
        // The server has no method of this name: it verifies a JWT-SVID with the method `jwt`, and an
        // X.509-SVID with the method `cert`.
        "" if method == AuthMethod::Spiffe => {
            let is_x509 = reading.text("spiffe-svid") == "x509";
            MountPath::parse(if is_x509 { "cert" } else { "jwt" }).ok()
        }
        "" => MountPath::parse(method.as_str()).ok(),
        _ => reading.parsed("auth-mount", MountPath::parse),
    }
}

fn approle(reading: &mut Reading<'_>) -> Option<AppRoleSettings> {
    let role_id = role_id(reading);
    let secret_id_path = path(reading, "approle-secret-id-path");
    let wrapped = reading.boolean("approle-secret-id-wrapped");
    let cache = path(reading, "approle-secret-id-cache");
    if cache.is_some() && wrapped == Some(false) {
        let problem = "only an unwrapped secret ID is cached; give --approle-secret-id-wrapped too";
        reading.wrong("approle-secret-id-cache", problem);
    }
    if wrapped == Some(true) && secret_id_path.is_none() {
        let problem = "there is no file to unwrap; give --approle-secret-id-path too";
        reading.wrong("approle-secret-id-wrapped", problem);
    }
    Some(AppRoleSettings {
        role_id: role_id?,
        secret_id_path,
        secret_id_wrapped: wrapped?,
        secret_id_cache: cache,
    })
}

/// Reads the role ID, or the path of its file.
fn role_id(reading: &mut Reading<'_>) -> Option<RoleId> {
    let (given, file) = (reading.given("approle-role-id"), reading.given("approle-role-id-path"));
    if file > given {
        return Some(RoleId::File(PathBuf::from(reading.text("approle-role-id-path"))));
    }
    if file.is_some() && file == given {
        reading.wrong("approle-role-id", "--approle-role-id-path is given too; give one of them");
        return None;
    }
    reading.required("approle-role-id", |text| {
        is_short(text)?;
        credential_text::check(text).map_err(|form| format!("{form}; give the role ID alone"))?;
        Ok(RoleId::Given(text.to_owned()))
    })
}

fn jwt(reading: &mut Reading<'_>) -> Option<JwtSettings> {
    let path = required_path(reading, "jwt-path");
    let role = role(reading, "jwt-role");
    Some(JwtSettings { role: role?, path: path? })
}

fn kubernetes(reading: &mut Reading<'_>) -> Option<JwtSettings> {
    let path = required_path(reading, "kubernetes-jwt-path");
    let role = reading.required("kubernetes-role", role_name);
    Some(JwtSettings { role: role?, path: path? })
}

fn cert(reading: &mut Reading<'_>) -> Option<CertSettings> {
    let role = role(reading, "cert-role");
    if reading.text("tls-client-cert-file").is_empty() {
        reading.wrong("tls-client-cert-file", "it is required with --auth-method=cert");
        return None;
    }
    Some(CertSettings { role: role? })
}

fn spiffe_login(reading: &mut Reading<'_>) -> Option<SpiffeLoginSettings> {
    let socket = reading.required("spiffe-socket", spiffe::socket);
    let id = match reading.text("spiffe-id") {
        "" => Some(None),
        _ => reading.parsed("spiffe-id", spiffe::id).map(Some),
    };
    let role = role(reading, "spiffe-role");
    let svid = match reading.text("spiffe-svid") {
        "jwt" => reading.required("spiffe-audience", role_name).map(Svid::Jwt),
        "x509" => Some(Svid::X509),
        other => {
            let problem = format!("{other:?} is not a form of an SVID; write jwt or x509");
            reading.wrong("spiffe-svid", problem);
            None
        }
    };
    Some(SpiffeLoginSettings {
        agent: AgentSettings { socket: socket?, id: id? },
        role: role?,
        svid: svid?,
    })
}

fn token_file(reading: &mut Reading<'_>) -> Option<TokenFileSettings> {
    let path = required_path(reading, "token-file");
    let wrapped = reading.boolean("token-file-wrapped");
    let renew = reading.boolean("token-file-renew");
    Some(TokenFileSettings { path: path?, wrapped: wrapped?, renew: renew? })
}

fn path(reading: &Reading<'_>, flag: &str) -> Option<PathBuf> {
    let text = reading.text(flag);
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn required_path(reading: &mut Reading<'_>, flag: &str) -> Option<PathBuf> {
    reading.required(flag, |text| Ok(PathBuf::from(text)))
}

/// Reads the name of a role, which may be empty.
fn role(reading: &mut Reading<'_>, flag: &str) -> Option<String> {
    reading.parsed(flag, role_name)
}

fn role_name(text: &str) -> Result<String, String> {
    is_short(text)?;
    if text.chars().any(char::is_control) {
        return Err("it has characters that are not valid in the name of a role".to_owned());
    }
    Ok(text.to_owned())
}

fn is_short(text: &str) -> Result<(), String> {
    if text.len() > ROLE_MAX {
        return Err(format!("it is longer than {ROLE_MAX} bytes"));
    }
    Ok(())
}
