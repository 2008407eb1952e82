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
":: :_vault-kube-kmsctl_commands" \
"*::: :->vault-kube-kmsctl" \
&& ret=0
    case $state in
    (vault-kube-kmsctl)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:vault-kube-kmsctl-command-$line[1]:"
        case $line[1] in
            (inventory)
_arguments "${_arguments_options[@]}" : \
'*--etcd-servers=[URLs of the members of etcd, with commas, as the API server'\''s flag of this name has them]:URL,...:_default' \
'--etcd-cafile=[The certificate of etcd'\''s authority, as PEM]:FILE:_files' \
'--etcd-certfile=[The client certificate for etcd, as PEM]:FILE:_files' \
'--etcd-keyfile=[The key of the client certificate, as PEM]:FILE:_files' \
'*--etcd-prefix=[The API server'\''s --etcd-prefix. OpenShift has two\: kubernetes.io and openshift.io]:PREFIX,...:_default' \
'--etcd-user=[The user, when etcd has authentication of its own]:NAME:_default' \
'--etcd-password-file=[The file with the password of that user]:FILE:_files' \
'--api-server-manifest=[The manifest of the API server'\''s static Pod. Its --etcd flags are used; flags given here win]:FILE:_files' \
'(--etcd-servers --api-server-manifest)--etcd-snapshot=[Read this snapshot of etcd instead of a live etcd]:FILE:_files' \
'*--resource=[Read only this resource, as it is written in etcd\: secrets, example.com/widgets. Repeatable]:RESOURCE:_default' \
'*--snapshot=[A backup of etcd that may be restored\: the versions that it needs are kept. Repeatable]:FILE:_files' \
'*--node=[A node\: its name, and the URL of its provider'\''s metrics or a saved /statusz?format=json. Give all nodes. Repeatable]:NAME=URL|FILE:_default' \
'*--expect-encrypted=[A resource whose objects must all be encrypted, besides secrets. Repeatable]:RESOURCE:_default' \
'--is-safe=[End with exit code 1 unless it is shown that this \`min_decryption_version\` is safe]:VERSION:_default' \
'--list=[List the objects themselves instead, one in a line\: all, or those in one state]::STATE:(all ours other-plugin other-provider clear unreadable)' \
'--output=[How to print]:FORMAT:((text\:"For people"
json\:"For machines\: one JSON object, or with --list one in each line"))' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(rewrite)
_arguments "${_arguments_options[@]}" : \
'*--resource=[The resources, as an \`EncryptionConfiguration\` names them\: secrets,widgets.example.com]:RESOURCES:_default' \
'--namespace=[Only the objects of this namespace]:NAME:_default' \
'(--etcd-servers --api-server-manifest --until-key-id)--selector=[Only the objects with these labels, such as app=db,tier!=test. Not with etcd, which knows none]:LABELS:_default' \
'*--etcd-servers=[URLs of the members of etcd, with commas, as the API server'\''s flag of this name has them]:URL,...:_default' \
'--etcd-cafile=[The certificate of etcd'\''s authority, as PEM]:FILE:_files' \
'--etcd-certfile=[The client certificate for etcd, as PEM]:FILE:_files' \
'--etcd-keyfile=[The key of the client certificate, as PEM]:FILE:_files' \
'*--etcd-prefix=[The API server'\''s --etcd-prefix. OpenShift has two\: kubernetes.io and openshift.io]:PREFIX,...:_default' \
'--etcd-user=[The user, when etcd has authentication of its own]:NAME:_default' \
'--etcd-password-file=[The file with the password of that user]:FILE:_files' \
'--api-server-manifest=[The manifest of the API server'\''s static Pod. Its --etcd flags are used; flags given here win]:FILE:_files' \
'--until-key-id=[Try only the objects that etcd has not under this key id. /statusz shows the one that writes]:KEY_ID:_default' \
'--kubeconfig=[The kubeconfig. Without it\: \$KUBECONFIG, ~/.kube/config, or the service account of this Pod]:FILE:_files' \
'--context=[The context of the kubeconfig]:NAME:_default' \
'--rate=[The objects per second, at most]:NUMBER:_default' \
'--parallel=[The requests under way at once, at most]:NUMBER:_default' \
'--patience=[How many seconds to wait for an API server that does not answer]:SECONDS:_default' \
'--state=[Keep in this file how far the work is. The same command goes on from there, and removes the file at the end]:FILE:_files' \
'--output=[The form of the answer]:OUTPUT:(text json)' \
'--dry-run[Let the API server and its webhooks check each write, and write nothing]' \
'--print-role[Print the \`ClusterRole\` that the work needs, and do nothing]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(drill)
_arguments "${_arguments_options[@]}" : \
'--snapshot=[The file that \`etcdctl snapshot save\` wrote, or a copy of member/snap/db]:FILE:_files' \
'(--plugin)--config=[The configuration file of the provider]:FILE:_files' \
'()--plugin=[The socket of a running KMS v2 plugin, in place of a keeper]:unix:///PATH:_default' \
'--provider=[With --plugin\: tests only objects of this name in the \`EncryptionConfiguration\`]:NAME:_default' \
'*--etcd-prefix=[The API server'\''s --etcd-prefix. \`OpenShift\` has two\: kubernetes.io and openshift.io]:PREFIX,...:_default' \
'--resource=[Tests only this resource, such as secrets or example.com/widgets]:RESOURCE:_default' \
'(--all)--sample=[Opens this many objects of each resource under each seed, the newest first]:N:_default' \
'--wait=[Waits this long for a keeper that is away, for each seed]:SECONDS:_default' \
'*--report=[Writes the report to this file, which ends in .json or .html. Repeatable]:FILE:_files' \
'--list-unreadable=[Writes all objects that cannot be read to this file\: a reason, a tab and the key in etcd in each line. Written only when the drill has a result]:FILE:_files' \
'--output=[The form of the answer]:OUTPUT:(text json)' \
'--all[Opens all objects]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::flags -- Flags of `vault-kube-kms serve`:_default' \
&& ret=0
;;
(rotation)
_arguments "${_arguments_options[@]}" : \
'*--node=[A node\: its name, and the address of its provider'\''s metrics, or a file with the saved JSON of its /statusz]:NAME=URL|FILE:_default' \
'*--api-server=[An API server, asked for its metrics\: its URL, or a context of the kubeconfig. Name each API server itself, not a load balancer]:URL|CONTEXT:_default' \
'--kubeconfig=[The kubeconfig for the API servers. Without --api-server, the server of its current context is asked]:FILE:_files' \
'--expect=[The version that must be reached. Name it when the key has just been rotated]:VERSION:_default' \
'--timeout=[The longest time of --watch]:DURATION:_default' \
'*--etcd-servers=[URLs of the members of etcd, with commas, as the API server'\''s flag of this name has them]:URL,...:_default' \
'--etcd-cafile=[The certificate of etcd'\''s authority, as PEM]:FILE:_files' \
'--etcd-certfile=[The client certificate for etcd, as PEM]:FILE:_files' \
'--etcd-keyfile=[The key of the client certificate, as PEM]:FILE:_files' \
'*--etcd-prefix=[The API server'\''s --etcd-prefix. OpenShift has two\: kubernetes.io and openshift.io]:PREFIX,...:_default' \
'--etcd-user=[The user, when etcd has authentication of its own]:NAME:_default' \
'--etcd-password-file=[The file with the password of that user]:FILE:_files' \
'--api-server-manifest=[The manifest of the API server'\''s static Pod. Its --etcd flags are used; flags given here win]:FILE:_files' \
'--output=[The form of the answer. With --watch, json prints one line for each change]:OUTPUT:(text json)' \
'--watch[Shows the state every 2 s on a terminal, and each change otherwise. Ends when every node and API server writes the newest version, and each node has read the key since the start]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(conformance)
_arguments "${_arguments_options[@]}" : \
'--timeout=[The deadline of each call in seconds\: the timeout of the \`EncryptionConfiguration\`]:SECONDS:_default' \
'--wait=[How many seconds Status may take to become ok. OpenShift'\''s preflight waits for 30]:SECONDS:_default' \
'--storm=[How many distinct seeds are wrapped and unwrapped at once, 64 at a time]:N:_default' \
'--rotate=[A command for \`sh -c\` that rotates the key]:COMMAND:_default' \
'--rotated-within=[How many seconds Status may take to show the rotation]:SECONDS:_default' \
'--restart=[A command for \`sh -c\` that restarts the plugin. It returns while the plugin runs]:COMMAND:_default' \
'--output=[The form of the report on standard output]:OUTPUT:((text\:"Lines for people"
json\:"JSON with all rules and the measured times"))' \
'--junit=[A file for the report in JUnit'\''s XML]:FILE:_files' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':socket -- The socket of the plugin\: unix\:///path, unix\:///@name, or a path:_default' \
&& ret=0
;;
(init)
_arguments "${_arguments_options[@]}" : \
'--out=[The new directory]:DIR:_files' \
'(--out --yes --form --set)--check=[Say which steps of the installation in this directory are done on this node, and what to type next. Exit code 0\: all are done]:DIR:_files' \
'--kubeconfig=[With --check\: the kubeconfig, to ask the API server whether its KMS providers work]:FILE:_files' \
'--root=[With --check\: the root directory of the node]:DIR:_files' \
'--form=[How the provider runs]:FORM:(static-pod systemd)' \
'*--set=[A setting of the provider, such as \`vault-address=https\://vault.example.com\:8200\`\: the name of one of its flags, without dashes, and the value. vault-kube-kms --help lists them]:FLAG=VALUE:_default' \
'--image=[The image of the static Pod]:NAME:_default' \
'*--resources=[The resources to encrypt]:RESOURCE:_default' \
'--begin=[The first stage of the \`EncryptionConfiguration\`\: write is for a cluster with one API server and no data]:BEGIN:(read write)' \
'--output=[With --check\: the form of the answer]:OUTPUT:(text json)' \
'--yes[Ask nothing. Defaults stand for what is not given]' \
'--system-authorities[The keeper'\''s certificate is from an authority of the system, so no ca.pem is needed]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_vault-kube-kmsctl__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:vault-kube-kmsctl-help-command-$line[1]:"
        case $line[1] in
            (inventory)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(rewrite)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(drill)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(rotation)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(conformance)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(init)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_vault-kube-kmsctl_commands] )) ||
_vault-kube-kmsctl_commands() {
    local commands; commands=(
'inventory:Says what is encrypted with which key version, and which versions may be retired' \
'rewrite:Stores objects again, through the API server, until nothing is left under an old key id' \
'drill:Proves that a keeper can read a snapshot of etcd\: unwraps every distinct seed, and opens objects as the API server does' \
'rotation:Shows where a rotation of the key is, on all nodes and API servers, and what to type next' \
'conformance:Tries a KMS v2 plugin, ours or another one, against the rules that kube-apiserver enforces' \
'init:Writes the files and the commands of a new installation, and says how far it is' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'vault-kube-kmsctl commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__conformance_commands] )) ||
_vault-kube-kmsctl__subcmd__conformance_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl conformance commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__drill_commands] )) ||
_vault-kube-kmsctl__subcmd__drill_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl drill commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help_commands] )) ||
_vault-kube-kmsctl__subcmd__help_commands() {
    local commands; commands=(
'inventory:Says what is encrypted with which key version, and which versions may be retired' \
'rewrite:Stores objects again, through the API server, until nothing is left under an old key id' \
'drill:Proves that a keeper can read a snapshot of etcd\: unwraps every distinct seed, and opens objects as the API server does' \
'rotation:Shows where a rotation of the key is, on all nodes and API servers, and what to type next' \
'conformance:Tries a KMS v2 plugin, ours or another one, against the rules that kube-apiserver enforces' \
'init:Writes the files and the commands of a new installation, and says how far it is' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'vault-kube-kmsctl help commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__conformance_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__conformance_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help conformance commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__drill_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__drill_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help drill commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__help_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help help commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__init_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__init_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help init commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__inventory_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__inventory_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help inventory commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__rewrite_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__rewrite_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help rewrite commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__help__subcmd__rotation_commands] )) ||
_vault-kube-kmsctl__subcmd__help__subcmd__rotation_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl help rotation commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__init_commands] )) ||
_vault-kube-kmsctl__subcmd__init_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl init commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__inventory_commands] )) ||
_vault-kube-kmsctl__subcmd__inventory_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl inventory commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__rewrite_commands] )) ||
_vault-kube-kmsctl__subcmd__rewrite_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl rewrite commands' commands "$@"
}
(( $+functions[_vault-kube-kmsctl__subcmd__rotation_commands] )) ||
_vault-kube-kmsctl__subcmd__rotation_commands() {
    local commands; commands=()
    _describe -t commands 'vault-kube-kmsctl rotation commands' commands "$@"
}

if [ "$funcstack[1]" = "_vault-kube-kmsctl" ]; then
    _vault-kube-kmsctl "$@"
else
    compdef _vault-kube-kmsctl vault-kube-kmsctl
fi
