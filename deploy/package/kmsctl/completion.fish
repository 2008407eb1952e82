# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vault_kube_kmsctl_global_optspecs
    string join \n h/help V/version
end

function __fish_vault_kube_kmsctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vault_kube_kmsctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vault_kube_kmsctl_using_subcommand
    set -l cmd (__fish_vault_kube_kmsctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -s V -l version -d 'Print version'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "inventory" -d 'Says what is encrypted with which key version, and which versions may be retired'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "rewrite" -d 'Stores objects again, through the API server, until nothing is left under an old key id'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "drill" -d 'Proves that a keeper can read a snapshot of etcd: unwraps every distinct seed, and opens objects as the API server does'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "rotation" -d 'Shows where a rotation of the key is, on all nodes and API servers, and what to type next'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "conformance" -d 'Tries a KMS v2 plugin, ours or another one, against the rules that kube-apiserver enforces'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "init" -d 'Writes the files and the commands of a new installation, and says how far it is'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-servers -d 'URLs of the members of etcd, with commas, as the API server\'s flag of this name has them' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-cafile -d 'The certificate of etcd\'s authority, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-certfile -d 'The client certificate for etcd, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-keyfile -d 'The key of the client certificate, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-prefix -d 'The API server\'s --etcd-prefix. OpenShift has two: kubernetes.io and openshift.io' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-user -d 'The user, when etcd has authentication of its own' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-password-file -d 'The file with the password of that user' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l api-server-manifest -d 'The manifest of the API server\'s static Pod. Its --etcd flags are used; flags given here win' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l etcd-snapshot -d 'Read this snapshot of etcd instead of a live etcd' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l resource -d 'Read only this resource, as it is written in etcd: secrets, example.com/widgets. Repeatable' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l snapshot -d 'A backup of etcd that may be restored: the versions that it needs are kept. Repeatable' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l node -d 'A node: its name, and the URL of its provider\'s metrics or a saved /statusz?format=json. Give all nodes. Repeatable' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l expect-encrypted -d 'A resource whose objects must all be encrypted, besides secrets. Repeatable' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l is-safe -d 'End with exit code 1 unless it is shown that this `min_decryption_version` is safe' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l list -d 'List the objects themselves instead, one in a line: all, or those in one state' -r -f -a "all\t''
ours\t''
other-plugin\t''
other-provider\t''
clear\t''
unreadable\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For machines: one JSON object, or with --list one in each line'"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand inventory" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l resource -d 'The resources, as an `EncryptionConfiguration` names them: secrets,widgets.example.com' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l namespace -d 'Only the objects of this namespace' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l selector -d 'Only the objects with these labels, such as app=db,tier!=test. Not with etcd, which knows none' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-servers -d 'URLs of the members of etcd, with commas, as the API server\'s flag of this name has them' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-cafile -d 'The certificate of etcd\'s authority, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-certfile -d 'The client certificate for etcd, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-keyfile -d 'The key of the client certificate, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-prefix -d 'The API server\'s --etcd-prefix. OpenShift has two: kubernetes.io and openshift.io' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-user -d 'The user, when etcd has authentication of its own' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l etcd-password-file -d 'The file with the password of that user' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l api-server-manifest -d 'The manifest of the API server\'s static Pod. Its --etcd flags are used; flags given here win' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l until-key-id -d 'Try only the objects that etcd has not under this key id. /statusz shows the one that writes' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l kubeconfig -d 'The kubeconfig. Without it: $KUBECONFIG, ~/.kube/config, or the service account of this Pod' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l context -d 'The context of the kubeconfig' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l rate -d 'The objects per second, at most' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l parallel -d 'The requests under way at once, at most' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l patience -d 'How many seconds to wait for an API server that does not answer' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l state -d 'Keep in this file how far the work is. The same command goes on from there, and removes the file at the end' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l output -d 'The form of the answer' -r -f -a "text\t''
json\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l dry-run -d 'Let the API server and its webhooks check each write, and write nothing'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -l print-role -d 'Print the `ClusterRole` that the work needs, and do nothing'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rewrite" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l snapshot -d 'The file that `etcdctl snapshot save` wrote, or a copy of member/snap/db' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l config -d 'The configuration file of the provider' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l plugin -d 'The socket of a running KMS v2 plugin, in place of a keeper' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l provider -d 'With --plugin: tests only objects of this name in the `EncryptionConfiguration`' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l etcd-prefix -d 'The API server\'s --etcd-prefix. `OpenShift` has two: kubernetes.io and openshift.io' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l resource -d 'Tests only this resource, such as secrets or example.com/widgets' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l sample -d 'Opens this many objects of each resource under each seed, the newest first' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l wait -d 'Waits this long for a keeper that is away, for each seed' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l report -d 'Writes the report to this file, which ends in .json or .html. Repeatable' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l list-unreadable -d 'Writes all objects that cannot be read to this file: a reason, a tab and the key in etcd in each line. Written only when the drill has a result' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l output -d 'The form of the answer' -r -f -a "text\t''
json\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -l all -d 'Opens all objects'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand drill" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l node -d 'A node: its name, and the address of its provider\'s metrics, or a file with the saved JSON of its /statusz' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l api-server -d 'An API server, asked for its metrics: its URL, or a context of the kubeconfig. Name each API server itself, not a load balancer' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l kubeconfig -d 'The kubeconfig for the API servers. Without --api-server, the server of its current context is asked' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l expect -d 'The version that must be reached. Name it when the key has just been rotated' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l timeout -d 'The longest time of --watch' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-servers -d 'URLs of the members of etcd, with commas, as the API server\'s flag of this name has them' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-cafile -d 'The certificate of etcd\'s authority, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-certfile -d 'The client certificate for etcd, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-keyfile -d 'The key of the client certificate, as PEM' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-prefix -d 'The API server\'s --etcd-prefix. OpenShift has two: kubernetes.io and openshift.io' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-user -d 'The user, when etcd has authentication of its own' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l etcd-password-file -d 'The file with the password of that user' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l api-server-manifest -d 'The manifest of the API server\'s static Pod. Its --etcd flags are used; flags given here win' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l output -d 'The form of the answer. With --watch, json prints one line for each change' -r -f -a "text\t''
json\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -l watch -d 'Shows the state every 2 s on a terminal, and each change otherwise. Ends when every node and API server writes the newest version, and each node has read the key since the start'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand rotation" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l timeout -d 'The deadline of each call in seconds: the timeout of the `EncryptionConfiguration`' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l wait -d 'How many seconds Status may take to become ok. OpenShift\'s preflight waits for 30' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l storm -d 'How many distinct seeds are wrapped and unwrapped at once, 64 at a time' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l rotate -d 'A command for `sh -c` that rotates the key' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l rotated-within -d 'How many seconds Status may take to show the rotation' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l restart -d 'A command for `sh -c` that restarts the plugin. It returns while the plugin runs' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l output -d 'The form of the report on standard output' -r -f -a "text\t'Lines for people'
json\t'JSON with all rules and the measured times'"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -l junit -d 'A file for the report in JUnit\'s XML' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand conformance" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l out -d 'The new directory' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l check -d 'Say which steps of the installation in this directory are done on this node, and what to type next. Exit code 0: all are done' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l kubeconfig -d 'With --check: the kubeconfig, to ask the API server whether its KMS providers work' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l root -d 'With --check: the root directory of the node' -r -F
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l form -d 'How the provider runs' -r -f -a "static-pod\t''
systemd\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l set -d 'A setting of the provider, such as `vault-address=https://vault.example.com:8200`: the name of one of its flags, without dashes, and the value. vault-kube-kms --help lists them' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l image -d 'The image of the static Pod' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l resources -d 'The resources to encrypt' -r
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l begin -d 'The first stage of the `EncryptionConfiguration`: write is for a cluster with one API server and no data' -r -f -a "read\t''
write\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l output -d 'With --check: the form of the answer' -r -f -a "text\t''
json\t''"
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l yes -d 'Ask nothing. Defaults stand for what is not given'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -l system-authorities -d 'The keeper\'s certificate is from an authority of the system, so no ca.pem is needed'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "inventory" -d 'Says what is encrypted with which key version, and which versions may be retired'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "rewrite" -d 'Stores objects again, through the API server, until nothing is left under an old key id'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "drill" -d 'Proves that a keeper can read a snapshot of etcd: unwraps every distinct seed, and opens objects as the API server does'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "rotation" -d 'Shows where a rotation of the key is, on all nodes and API servers, and what to type next'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "conformance" -d 'Tries a KMS v2 plugin, ours or another one, against the rules that kube-apiserver enforces'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "init" -d 'Writes the files and the commands of a new installation, and says how far it is'
complete -c vault-kube-kmsctl -n "__fish_vault_kube_kmsctl_using_subcommand help; and not __fish_seen_subcommand_from inventory rewrite drill rotation conformance init help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
