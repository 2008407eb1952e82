#compdef vault-kube-kms
# Completion of vault-kube-kms in zsh, made from its flags.
_arguments -S \
    '1:command:(serve check policy dev local)' \
    '2:action:{ [[ $words[2] == local ]] && compadd init rotate }' \
    '--listen-address=[Socket for the API server\: unix\:///path, a bare path, or unix\:///@name]:ADDRESS: ' \
    '*--allowed-uid=[Peer uid that may connect, beside root and this process'\''s own. An abstract socket admits no others; a file socket admits whom its mode admits, unless this is given]:UID: ' \
    '--keeper=[Who keeps the key]:KEEPER:(vault local)' \
    '*--vault-address=[The server'\''s address, https\://host\:port, or those of several nodes of one cluster, with commas (required)]:URL: ' \
    '--vault-namespace=[Namespace of the Transit mount]:NAMESPACE: ' \
    '--vault-auth-namespace=[Namespace of the auth mount (default\: that of --vault-namespace)]:NAMESPACE: ' \
    '--vault-key-path=[The key, <mount>/keys/<key> (required, or --transit-key)]:PATH: ' \
    '--transit-mount=[Older form of the key\: its mount]:MOUNT: ' \
    '--transit-key=[Older form of the key\: its name]:KEY: ' \
    '--vault-connection-timeout=[Most time to establish a connection, within that of a request]:DURATION: ' \
    '--vault-request-timeout=[Most time for one request, within the caller'\''s deadline]:DURATION: ' \
    '--require-enterprise=-[Refuse servers without a Vault Enterprise licence]::truth:(true false)' \
    '--tls-ca-file=[PEM bundle of the only authorities to trust (default\: the system'\''s)]:FILE:_files' \
    '--tls-sni=[Server name to send and to verify (default\: the address'\''s host)]:NAME: ' \
    '--tls-skip-verify=-[Believe any certificate; not for production]::truth:(true false)' \
    '--tls-require-pq=-[Refuse servers that agree to no hybrid post-quantum key exchange]::truth:(true false)' \
    '--auth-method=[The auth method; approle is the only one]:METHOD:(approle)' \
    '--auth-mount=[Mount of the auth method]:MOUNT: ' \
    '--approle-role-id=[AppRole role ID (required, or --approle-role-id-path)]:ID: ' \
    '--approle-role-id-path=[File that holds the role ID]:FILE:_files' \
    '--approle-secret-id-path=[File that holds the AppRole secret ID (needed unless the role has bind_secret_id=false)]:FILE:_files' \
    '--approle-secret-id-wrapped=-[That file holds a token that wraps the secret ID; it is unwrapped once]::truth:(true false)' \
    '--approle-secret-id-cache=[Keeps the unwrapped secret ID over restarts, in a 0600 file; put it on tmpfs]:FILE:_files' \
    '--login-timeout=[Most time for a login, a renewal or an unwrap, which no request waits for]:DURATION: ' \
    '--local-key-file=[The embedded keeper'\''s key file]:FILE:_files' \
    '--rotation-delay=[Age at which a new key version begins to write, on all nodes at once]:DURATION: ' \
    '--key-lineage=[Name from which key ids derive, for a key that moved (default\: its place)]:NAME: ' \
    '--key-generation=[Raise by one to give a key that is used again new ids]:N: ' \
    '*--accept-key-id=[Read objects of this key id with this key version, after a re-import]:ID=VERSION: ' \
    '--legacy-decrypt=-[Also read what other Vault plugins wrapped with the same key]::truth:(true false)' \
    '--outage-policy=[What Status tells during an outage\: stop-writes or keep-writing]:POLICY:(stop-writes keep-writing)' \
    '--outage-grace=[How long an outage may last before Status tells it]:DURATION: ' \
    '--health-port=[Port of /healthz and /readyz; 0 or less\: off]:PORT: ' \
    '--health-address=[Address of /healthz and /readyz\: that of the Pod or the node, or 127.0.0.1; all addresses unless given]:IP: ' \
    '--metrics-port=[/metrics and /statusz on localhost; 0 or less\: off]:PORT: ' \
    '--audit-log=[Writes a line for each wrap and unwrap, without data, to this file (a path), to journal or to stdout; empty\: none]:PLACE: ' \
    '--audit-on-loss=[When an entry of --audit-log is lost\: count it, or refuse calls until entries can be written again]:POLICY:(count refuse)' \
    '--disable-runtime-metrics=-[Leave the process'\''s own metrics out]::truth:(true false)' \
    '--zap-log-level=[error, warn, info, debug, trace, or a number (4 warn, 5 debug, 6 trace)]:LEVEL:(error warn info debug trace)' \
    '--log-level=[Older form of --zap-log-level]:LEVEL:(error warn info debug trace)' \
    '--otlp-endpoint=[Collector to send traces to by OTLP over gRPC\: http\://HOST\:PORT; empty\: none]:URL: ' \
    '--no-sandbox=-[Do not restrict the process to the files, ports and system calls that it needs]::truth:(true false)' \
    '--config=[TOML file with these names as keys; flags and variables win]:FILE:_files' \
    '--output=[What check prints, text or json. It exits with 0 (PASS), 1 (WARN) or 2 (FAIL)]:FORM:(text json)' \
    '(- *)--help[Print the help]' \
    '(- *)--version[Print the version]'
