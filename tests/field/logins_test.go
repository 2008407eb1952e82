package field_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"vault-kube-kms.test/parts"
)

// withoutFlag removes a flag.
func withoutFlag(flags []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(flag string) bool { return strings.HasPrefix(flag, name+"=") })
}

// TestRoleWithoutSecretID expects that a role with bind_secret_id=false needs only the role ID.
func TestRoleWithoutSecretID(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	must(t, n.MakeRole(map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8", "token_ttl": "60s"}))
	flags := withoutFlag(n.Flags(), "--approle-secret-id-path")
	p := start(t, flags)
	if printed := p.checks(t); strings.Contains(printed, "FAIL") {
		t.Errorf("check prints\n%s", printed)
	}
}

// TestRoleThatWantsTheSecretIDThatIsNotGiven expects that the error names the flag, if the role needs a secret ID
// and no file is configured.
func TestRoleThatWantsTheSecretIDThatIsNotGiven(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	p := launch(t, withoutFlag(n.Flags(), "--approle-secret-id-path"))
	p.waitTold(t, startBound, `--approle-secret-id-path`)
	must(t, n.MakeRole(map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8", "token_ttl": "60s"}))
	p.waitHealthy(t, "after the role wants no secret ID", refusalBound+slack)
}

func TestWrappedCustomSecretID(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	custom := "a-secret-id-of-our-own-" + parts.RandomName()
	token, err := n.Bao.Wrap("POST", rolePath(n)+"/custom-secret-id", map[string]any{"secret_id": custom})
	must(t, err)
	must(t, n.WriteSecretID(token))
	p := start(t, append(n.Flags(), "--approle-secret-id-wrapped"))
	p.requireNeverTold(t, custom, token)
}

// TestRefusalsThatAreNotAboutThePair expects that the same secret ID is tried again soon, after the keeper has
// refused it for a reason that an operator then corrects.
func TestRefusalsThatAreNotAboutThePair(t *testing.T) {
	t.Parallel()
	for trial, c := range map[string]struct {
		spoil, mend func(t *testing.T, n *parts.Tenant)
		more        []string
		told, wrong []string
	}{
		"token_num_uses_fixed": {
			spoil: role(map[string]any{"token_num_uses": 10}),
			mend:  role(map[string]any{"token_num_uses": 0}),
			told:  []string{`token_num_uses=0`},
		},
		"cidr_list_fixed": {
			spoil: role(map[string]any{"secret_id_bound_cidrs": "192.0.2.0/24"}),
			mend:  role(map[string]any{"secret_id_bound_cidrs": "127.0.0.0/8"}),
			told:  []string{`CIDR`}, wrong: []string{"does not know this pair", "write a new secret ID"},
		},
		"token_cidr_list_fixed": {
			spoil: role(map[string]any{"token_bound_cidrs": "192.0.2.0/24"}),
			mend:  role(map[string]any{"token_bound_cidrs": "127.0.0.0/8"}),
			told:  []string{`(?i)cidr`}, wrong: []string{"does not know this pair", "write a new secret ID"},
		},
		"auth_mount_comes_later": {
			spoil: func(*testing.T, *parts.Tenant) {},
			mend: func(t *testing.T, n *parts.Tenant) {
				ask(t, n.Bao, "POST", "sys/auth/later-"+n.Key, map[string]any{"type": "approle"})
				path := "auth/later-" + n.Key + "/role/" + n.Key
				ask(t, n.Bao, "POST", path, map[string]any{"token_policies": n.Key, "token_ttl": 60})
				ask(t, n.Bao, "POST", path+"/role-id", map[string]any{"role_id": n.RoleID})
				ask(t, n.Bao, "POST", path+"/custom-secret-id", map[string]any{"secret_id": n.SecretID})
			},
			more: []string{"--auth-mount=later-KEY"},
			told: []string{`--auth-mount`}, wrong: []string{"write a new secret ID"},
		},
		"key_comes_later": {
			spoil: func(t *testing.T, n *parts.Tenant) {
				ask(t, n.Bao, "POST", "transit/keys/"+n.Key+"/config", map[string]any{"deletion_allowed": true})
				ask(t, n.Bao, "DELETE", "transit/keys/"+n.Key, nil)
			},
			mend: func(t *testing.T, n *parts.Tenant) { must(t, n.MakeKey()) },
			told: []string{`create it`, `no key`},
		},
	} {
		t.Run(trial, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			c.spoil(t, n)
			flags := n.Flags()
			for _, flag := range c.more {
				flags = append(flags, strings.ReplaceAll(flag, "KEY", n.Key))
			}
			p := launch(t, flags)
			p.waitTold(t, startBound, c.told...)
			p.checks(t)
			c.mend(t, n)
			p.waitHealthy(t, "after the refusal's cause has ended", refusalBound+slack)
			p.requireNeverTold(t, c.wrong...)
		})
	}
}

// role changes settings of the role of a tenant.
func role(settings map[string]any) func(*testing.T, *parts.Tenant) {
	return func(t *testing.T, n *parts.Tenant) { must(t, n.MakeRole(settings)) }
}

// TestTwoPluginsOnARoleWhileItLocks locks the role by failed logins of another client, while two plugins use it.
// It expects that both recover when the lock ends, and that neither prolongs the lock.
func TestTwoPluginsOnARoleWhileItLocks(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	must(t, n.MakeRole(map[string]any{"token_ttl": "2s", "token_max_ttl": "2s"}))
	plugins := []*plugin{start(t, n.Flags()), start(t, n.Flags())}
	login := func(secretID string) error {
		_, err := n.Bao.Ask("POST", "auth/approle/login", map[string]any{"role_id": n.RoleID, "secret_id": secretID})
		return err
	}
	// A login of a plugin in this time resets the count.
	if !parts.Eventually(startBound, func() bool {
		for range 5 {
			_ = login(parts.RandomName())
		}
		return login(n.SecretID) != nil
	}) {
		t.Fatal("the role is not locked")
	}
	var group sync.WaitGroup
	for _, p := range plugins {
		group.Go(func() { p.waitTold(t, startBound, `(?i)lock`) })
	}
	group.Wait()
	accessor := ask(t, n.Bao, "GET", "sys/auth/approle", nil)["accessor"].(string)
	ask(t, n.Bao, "POST", "sys/locked-users/"+accessor+"/unlock/"+n.RoleID, nil)
	for _, p := range plugins {
		group.Go(func() { p.waitHealthy(t, "after the lock has ended", refusalBound+slack) })
	}
	group.Wait()
	for _, p := range plugins {
		p.requireNeverTold(t, "does not know this pair", "refused this pair")
	}
}
