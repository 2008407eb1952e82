complete -c vault-kube-kmsctl -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -s V -l version -d 'Print version'
