//! Derives from the settings what `serve` uses after its start, and reports the sandbox for
//! `check`.

use http::Uri;

use crate::{
    adapters::{
        grpc::address::SocketAddress,
        system::sandbox::{self, Needs, Report},
        telemetry::audit::AuditPlace,
    },
    config::settings::Settings,
    ports::finding::{Area, Finding},
};

/// Returns what a process with these `settings` uses after its socket and ports are bound. `binds`
/// says whether the process bound the socket itself. A socket from systemd is never bound again.
pub(super) fn needs(settings: &Settings, binds: bool) -> Needs {
    let mut needs = Needs::default();
    match &settings.listen {
        SocketAddress::File(path) => needs.sockets.extend(binds.then(|| path.clone())),
        // The watchdog connects to this process's own socket, which was bound before the sandbox.
        SocketAddress::Abstract(_) => needs.abstract_sockets = true,
    }
    settings.keeper.needs(&mut needs);
    if let Some((AuditPlace::File(path), _)) = &settings.audit {
        needs.written.push(path.clone());
    }
    let collector = settings.traces.as_deref().and_then(|text| text.parse::<Uri>().ok());
    if let Some((host, port)) = collector.as_ref().and_then(|uri| uri.host().zip(uri.port_u16())) {
        needs.connect(host, port);
    }
    needs
}

/// Reports what the sandbox would restrict on this kernel. Returns `None` when it is switched off.
pub(super) fn check(settings: &Settings) -> Option<Finding> {
    // `warnings` already reports a sandbox that is switched off.
    settings.sandbox.then(|| finding_of(&sandbox::available()))
}

fn finding_of(report: &Report) -> Finding {
    let offered = if report.in_force.is_empty() { "nothing" } else { &report.to_string() };
    let text = format!("the kernel offers {offered}");
    if report.missing.is_empty() {
        return Finding::pass(Area::Sandbox, text);
    }
    Finding::warn(Area::Sandbox, text, report.missing.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::sources::Sources, ports::finding::Verdict};

    fn needs_of(line: &str) -> Needs {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        needs(&Settings::read(&Sources::collect(&args, [])).unwrap(), true)
    }

    #[test]
    fn a_socket_of_systemd_needs_no_directory_to_write_to() {
        let line = ["--listen-address=/run/kms/k.sock", "--keeper=local"].map(str::to_owned);
        let settings = Settings::read(&Sources::collect(&line, [])).unwrap();
        assert!(needs(&settings, false).sockets.is_empty());
    }

    #[test]
    fn needs_the_files_and_ports_of_the_settings() {
        let needs = needs_of(
            "--listen-address=/run/kms/k.sock --vault-address=https://[::1],https://10.0.0.1:8200 \
             --vault-key-path=transit/keys/k --approle-role-id-path=/a/role \
             --approle-secret-id-path=/b/secret --approle-secret-id-wrapped \
             --approle-secret-id-cache=/c/cache --tls-ca-file=/d/ca \
             --tls-client-cert-file=/e/cert --tls-client-key-file=/e/key \
             --otlp-endpoint=http://127.0.0.1:4317",
        );
        let shown = |paths: &[std::path::PathBuf]| {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&needs.read), ["/a/role", "/b/secret", "/d/ca", "/e/cert", "/e/key"]);
        assert_eq!(shown(&needs.written), ["/c/cache"]);
        assert_eq!(shown(&needs.sockets), ["/run/kms/k.sock"]);
        assert_eq!(needs.ports, [443, 8200, 4317]);
        assert!(!needs.names && !needs.abstract_sockets);
    }

    #[test]
    fn connects_to_the_socket_of_a_spiffe_agent() {
        let needs = needs_of(
            "--listen-address=/run/kms/k.sock --vault-address=https://10.0.0.1 \
             --vault-key-path=transit/keys/k --auth-method=spiffe --spiffe-audience=vault \
             --spiffe-socket=unix:///run/spire/agent.sock",
        );
        assert_eq!(needs.peers, [std::path::Path::new("/run/spire/agent.sock")]);
        assert!(needs.read.is_empty(), "{needs:?}");
    }

    #[test]
    fn a_name_of_the_keeper_or_of_the_collector_needs_lookups() {
        let keeper = "--vault-key-path=transit/keys/k --approle-role-id=r";
        assert!(needs_of(&format!("{keeper} --vault-address=https://vault")).names);
        let collector = "--vault-address=https://10.0.0.1 --otlp-endpoint=http://localhost:1";
        assert!(needs_of(&format!("{keeper} {collector}")).names);
    }

    #[test]
    fn an_abstract_socket_is_needed_for_the_watchdog() {
        let needs = needs_of("--listen-address=unix:///@k --keeper=local --local-key-file=/k/key");
        assert!(needs.abstract_sockets && needs.sockets.is_empty() && needs.ports.is_empty());
        assert_eq!(needs.read, [std::path::Path::new("/k/key")]);
    }

    #[test]
    fn warns_of_what_the_kernel_lacks_with_a_remedy() {
        let mut report = Report {
            in_force: vec!["a".to_owned()],
            newer: vec!["b comes later".to_owned()],
            ..Report::default()
        };
        let finding = finding_of(&report);
        assert_eq!(finding.to_string(), "the kernel offers a; b comes later");
        assert_eq!(finding.verdict, Verdict::Pass);
        report.missing.push("c is missing; do d".to_owned());
        let finding = finding_of(&report);
        let text = "the kernel offers a; b comes later; c is missing; do d";
        assert_eq!((finding.to_string().as_str(), finding.verdict), (text, Verdict::Warn));
    }
}
