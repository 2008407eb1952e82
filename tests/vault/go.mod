// Each release of Vault has its own file of requirements: go build -modfile=vault-RELEASE.mod
module vault-kube-kms.test/vault

go 1.26
