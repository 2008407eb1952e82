#compdef vault-kube-kms
# Completion of vault-kube-kms in zsh, made from its flags.
_arguments -S \
    '1:command:(serve check policy dev local)' \
    '2:action:{ [[ $words[2] == local ]] && compadd init rotate }' \
    '--listen-address=[Socket for the API server\: unix\:///path, a bare path, or unix\:///@name]:ADDRESS: ' \
    '*--allowed-uid=[A uid that may connect, in addition to root and the uid of this process. An abstract socket always rejects other uids. A file socket does so only when this flag is given; otherwise its mode decides]:UID: ' \
    '--keeper=[Where the key is]:KEEPER:(vault local)' \
    '*--vault-address=[The server'\''s address, https\://host\:port, or the addresses of several nodes of one cluster, with commas (required)]:URL: ' \
    '--vault-namespace=[Namespace of the Transit mount]:NAMESPACE: ' \
    '--vault-auth-namespace=[Namespace of the auth mount (default\: the value of --vault-namespace)]:NAMESPACE: ' \
    '--vault-key-path=[The key, <mount>/keys/<key> (required, or --transit-key)]:PATH: ' \
    '--transit-mount=[Older form of --vault-key-path\: the mount of the key]:MOUNT: ' \
    '--transit-key=[Older form of --vault-key-path\: the name of the key]:KEY: ' \
    '--vault-connection-timeout=[Longest time to establish a connection, within the time of a request]:DURATION: ' \
    '--vault-request-timeout=[Longest time for one request, within the caller'\''s deadline]:DURATION: ' \
    '--require-enterprise=-[Refuse servers without a Vault Enterprise licence]::truth:(true false)' \
    '--tls-ca-file=[PEM bundle of the only authorities to trust (default\: the authorities of the system)]:FILE:_files' \
    '--tls-client-cert-file=[PEM file with the client certificate and then its chain, for servers that want one]:FILE:_files' \
    '--tls-client-key-file=[PEM file with the private key of the client certificate (default\: the file of --tls-client-cert-file)]:FILE:_files' \
    '--tls-client-key-password-file=[File that holds the password of the private key, if the key is encrypted]:FILE:_files' \
    '--tls-sni=[Server name to send and to verify (default\: the host of the address)]:NAME: ' \
    '--tls-skip-verify=-[INSECURE\: accept any certificate; not for production]::truth:(true false)' \
    '--tls-require-pq=-[Refuse servers without a hybrid post-quantum key exchange]::truth:(true false)' \
    '--auth-method=[How to log in\: approle, jwt, kubernetes, cert, spiffe or token-file]:METHOD:(approle jwt kubernetes cert spiffe token-file)' \
    '--auth-mount=[Mount of the auth method (default\: the name of the method; with spiffe jwt or cert, by --spiffe-svid)]:MOUNT: ' \
    '--login-timeout=[Longest time for a login, a renewal or an unwrap of a credential. It does not extend the deadline of a call]:DURATION: ' \
    '--approle-role-id=[AppRole role ID (required, or --approle-role-id-path)]:ID: ' \
    '--approle-role-id-path=[File that holds the role ID]:FILE:_files' \
    '--approle-secret-id-path=[File that holds the AppRole secret ID (needed unless the role has bind_secret_id=false)]:FILE:_files' \
    '--approle-secret-id-wrapped=-[The file of --approle-secret-id-path holds a wrapping token of the secret ID, which is unwrapped once]::truth:(true false)' \
    '--approle-secret-id-cache=[Keep the unwrapped secret ID over restarts in this file, mode 0600; put it on tmpfs]:FILE:_files' \
    '--jwt-path=[File that holds the JWT; it is read again before each login (required with this method)]:FILE:_files' \
    '--jwt-role=[Role of the auth mount (default\: the mount'\''s default_role)]:ROLE: ' \
    '--kubernetes-jwt-path=[File that holds the token of a service account of another cluster]:FILE:_files' \
    '--kubernetes-role=[Role of the auth mount (required with this method)]:ROLE: ' \
    '--cert-role=[Role of the auth mount (default\: the server selects the role by the certificate)]:ROLE: ' \
    '--spiffe-socket=[Socket of the SPIFFE Workload API, unix\:///path (required with this method)]:SOCKET: ' \
    '--spiffe-id=[SPIFFE ID to use (default\: the first one that the agent gives to this process)]:ID: ' \
    '--spiffe-svid=[Form of the identity\: a JWT-SVID for a mount of the method jwt, or an X.509-SVID for a mount of the method cert. An X.509-SVID needs a common name, which SPIRE sets from a DNS name of the registration entry]:FORM:(jwt x509)' \
    '--spiffe-audience=[Audience of the JWT-SVID, one of bound_audiences of the role (required with --spiffe-svid=jwt)]:AUDIENCE: ' \
    '--spiffe-role=[Role of the auth mount (default\: the default_role of a jwt mount; a cert mount selects one by the certificate)]:ROLE: ' \
    '--token-file=[File to which another program writes a token, such as the sink of an agent (required with this method)]:FILE:_files' \
    '--token-file-wrapped=-[The file of --token-file holds a wrapping token of the token, which is unwrapped once]::truth:(true false)' \
    '--token-file-renew=-[Renew the token. Without this flag, the program that writes the file renews it]::truth:(true false)' \
    '--local-key-file=[The embedded keeper'\''s key file]:FILE:_files' \
    '--rotation-delay=[Age at which a new key version begins to write, on all nodes at once]:DURATION: ' \
    '--key-lineage=[Name from which key ids are derived, for a key that was moved (default\: the place of the key)]:NAME: ' \
    '--key-generation=[Raise this by one when an older key is used again, so that it gets new key ids]:N: ' \
    '*--accept-key-id=[Decrypt objects of this key id with this key version, after a re-import]:ID=VERSION: ' \
    '--legacy-decrypt=-[Also decrypt objects that other Vault plugins wrote with the same key]::truth:(true false)' \
    '--outage-policy=[What Status answers during an outage\: stop-writes or keep-writing]:POLICY:(stop-writes keep-writing)' \
    '--outage-grace=[How long an outage may last before Status reports it]:DURATION: ' \
    '--health-port=[Port of /healthz and /readyz; 0 or less\: off]:PORT: ' \
    '--health-address=[Address of /healthz and /readyz\: the address of the Pod or the node, or 127.0.0.1; the default is all addresses]:IP: ' \
    '--metrics-port=[/metrics and /statusz on localhost; 0 or less\: off]:PORT: ' \
    '--audit-log=[Write one line for each wrap and unwrap, without data, to a file (its path), to journal or to stdout; empty\: off]:PLACE: ' \
    '--audit-on-loss=[When an entry of --audit-log is lost\: count the loss, or refuse calls until entries can be written again]:POLICY:(count refuse)' \
    '--disable-runtime-metrics=-[Leave out the metrics of the process itself]::truth:(true false)' \
    '--zap-log-level=[error, warn, info, debug, trace, or a number (4 warn, 5 debug, 6 trace)]:LEVEL:(error warn info debug trace)' \
    '--log-level=[Older form of --zap-log-level]:LEVEL:(error warn info debug trace)' \
    '--zap-encoder=[Format of the log lines on standard output]:FORMAT:(json console)' \
    '--zap-devel=-[Accepted and ignored]::truth:(true false)' \
    '--zap-stacktrace-level=[Accepted and ignored]:LEVEL: ' \
    '--zap-time-encoding=[Accepted and ignored]:ENCODING: ' \
    '--otlp-endpoint=[Collector that receives traces by OTLP over gRPC\: http\://HOST\:PORT; empty\: off]:URL: ' \
    '--no-sandbox=-[Do not restrict the process to the files, ports and system calls that it needs]::truth:(true false)' \
    '--config=[TOML file with these names as keys; flags and variables win]:FILE:_files' \
    '--output=[What check prints, text or json. It exits with 0 (PASS), 1 (WARN) or 2 (FAIL)]:FORM:(text json)' \
    '(- *)--help[Print the help]' \
    '(- *)--version[Print the version]'
