#compdef vault-kube-kmsctl

autoload -U is-at-least

_vault-kube-kmsctl() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
&& ret=0
}

(( $+functions[_vault-kube-kmsctl_commands] )) ||
_vault-kube-kmsctl_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl commands' commands "$@"
}

if [ "$funcstack[1]" = "_vault-kube-kmsctl" ]; then
    _vault-kube-kmsctl "$@"
else
    compdef _vault-kube-kmsctl vault-kube-kmsctl
fi
