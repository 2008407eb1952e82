# Completion of vault-kube-kms in bash, made from its flags.
_vault_kube_kms() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} assigned='' words=''
    # Bash treats = as a separate word.
    if [[ $word == = ]]; then
        word='' assigned=yes
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]} assigned=yes
    fi
    # One dash or two.
    [[ $before == -[!-]* ]] && before=-$before
    case $assigned$before in
    --tls-ca-file | --tls-client-cert-file | --tls-client-key-file | --tls-client-key-password-file | --approle-role-id-path | --approle-secret-id-path | --approle-secret-id-cache | --jwt-path | --kubernetes-jwt-path | --token-file | --local-key-file | --config | yes--tls-ca-file | yes--tls-client-cert-file | yes--tls-client-key-file | yes--tls-client-key-password-file | yes--approle-role-id-path | yes--approle-secret-id-path | yes--approle-secret-id-cache | yes--jwt-path | yes--kubernetes-jwt-path | yes--token-file | yes--local-key-file | yes--config)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    yes--require-enterprise | yes--tls-skip-verify | yes--tls-require-pq | yes--approle-secret-id-wrapped | yes--token-file-wrapped | yes--token-file-renew | yes--legacy-decrypt | yes--disable-runtime-metrics | yes--zap-devel | yes--no-sandbox)
        words='true false'
        ;;
    --keeper | yes--keeper)
        words='vault local'
        ;;
    --auth-method | yes--auth-method)
        words='approle jwt kubernetes cert spiffe token-file'
        ;;
    --spiffe-svid | yes--spiffe-svid)
        words='jwt x509'
        ;;
    --outage-policy | yes--outage-policy)
        words='stop-writes keep-writing'
        ;;
    --audit-on-loss | yes--audit-on-loss)
        words='count refuse'
        ;;
    --zap-log-level | yes--zap-log-level)
        words='error warn info debug trace'
        ;;
    --log-level | yes--log-level)
        words='error warn info debug trace'
        ;;
    --zap-encoder | yes--zap-encoder)
        words='json console'
        ;;
    --output | yes--output)
        words='text json'
        ;;
    --listen-address | --allowed-uid | --vault-address | --vault-namespace | --vault-auth-namespace | --vault-key-path | --transit-mount | --transit-key | --vault-connection-timeout | --vault-request-timeout | --tls-sni | --auth-mount | --login-timeout | --approle-role-id | --jwt-role | --kubernetes-role | --cert-role | --spiffe-socket | --spiffe-id | --spiffe-audience | --spiffe-role | --rotation-delay | --key-lineage | --key-generation | --accept-key-id | --outage-grace | --health-port | --health-address | --metrics-port | --audit-log | --zap-stacktrace-level | --zap-time-encoding | --otlp-endpoint | yes--listen-address | yes--allowed-uid | yes--vault-address | yes--vault-namespace | yes--vault-auth-namespace | yes--vault-key-path | yes--transit-mount | yes--transit-key | yes--vault-connection-timeout | yes--vault-request-timeout | yes--tls-sni | yes--auth-mount | yes--login-timeout | yes--approle-role-id | yes--jwt-role | yes--kubernetes-role | yes--cert-role | yes--spiffe-socket | yes--spiffe-id | yes--spiffe-audience | yes--spiffe-role | yes--rotation-delay | yes--key-lineage | yes--key-generation | yes--accept-key-id | yes--outage-grace | yes--health-port | yes--health-address | yes--metrics-port | yes--audit-log | yes--zap-stacktrace-level | yes--zap-time-encoding | yes--otlp-endpoint)
        words=''
        ;;
    *local)
        words='init rotate'
        ;;
    *)
        words='--listen-address --allowed-uid --keeper --vault-address --vault-namespace --vault-auth-namespace --vault-key-path --transit-mount --transit-key --vault-connection-timeout --vault-request-timeout --require-enterprise --tls-ca-file --tls-client-cert-file --tls-client-key-file --tls-client-key-password-file --tls-sni --tls-skip-verify --tls-require-pq --auth-method --auth-mount --login-timeout --approle-role-id --approle-role-id-path --approle-secret-id-path --approle-secret-id-wrapped --approle-secret-id-cache --jwt-path --jwt-role --kubernetes-jwt-path --kubernetes-role --cert-role --spiffe-socket --spiffe-id --spiffe-svid --spiffe-audience --spiffe-role --token-file --token-file-wrapped --token-file-renew --local-key-file --rotation-delay --key-lineage --key-generation --accept-key-id --legacy-decrypt --outage-policy --outage-grace --health-port --health-address --metrics-port --audit-log --audit-on-loss --disable-runtime-metrics --zap-log-level --log-level --zap-encoder --zap-devel --zap-stacktrace-level --zap-time-encoding --otlp-endpoint --no-sandbox --config --output --help --version'
        [[ $COMP_CWORD == 1 ]] && words+=' serve check policy dev local'
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _vault_kube_kms vault-kube-kms
