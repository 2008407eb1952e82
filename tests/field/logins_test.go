package field_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
				mountAt(t, n, "later-"+n.Key, map[string]any{"token_ttl": 60})
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
			requireFinding(t, p.checks(t), c.told...)
			c.mend(t, n)
			p.waitHealthy(t, "after the refusal's cause has ended", refusalBound+slack)
			p.requireNeverTold(t, c.wrong...)
		})
	}
}

// mountAt mounts AppRole, and copies the tenant's pair to a role with these settings there.
func mountAt(t *testing.T, n *parts.Tenant, mount string, settings map[string]any) {
	t.Helper()
	ask(t, n.Bao, "POST", "sys/auth/"+mount, map[string]any{"type": "approle"})
	path := "auth/" + mount + "/role/" + n.Key
	all := map[string]any{"token_policies": n.Key}
	maps.Copy(all, settings)
	ask(t, n.Bao, "POST", path, all)
	ask(t, n.Bao, "POST", path+"/role-id", map[string]any{"role_id": n.RoleID})
	ask(t, n.Bao, "POST", path+"/custom-secret-id", map[string]any{"secret_id": n.SecretID})
}

// role changes settings of the role of a tenant.
func role(settings map[string]any) func(*testing.T, *parts.Tenant) {
	return func(t *testing.T, n *parts.Tenant) { must(t, n.MakeRole(settings)) }
}

// TestTwoPluginsOnARoleWhileItLocks locks the role by failed logins of another client, while two plugins use it.
// It expects that both name the lock, send few logins, and recover soon after the lock has ended by itself.
func TestTwoPluginsOnARoleWhileItLocks(t *testing.T) {
	t.Parallel()
	n, mount := newTenant(t), parts.RandomName()
	const lock = 15 * time.Second
	seconds := fmt.Sprintf("%ds", int(lock.Seconds()))
	mountAt(t, n, mount, map[string]any{"token_ttl": "2s", "token_max_ttl": "2s"})
	ask(t, n.Bao, "POST", "sys/auth/"+mount+"/tune", map[string]any{"user_lockout_config": map[string]any{
		"lockout_threshold": "5", "lockout_duration": seconds, "lockout_counter_reset_duration": seconds,
	}})
	fronts := []*front{newFront(t, n.Bao), newFront(t, n.Bao)}
	var plugins []*plugin
	for _, f := range fronts {
		plugins = append(plugins, start(t, f.flags(n, "--auth-mount="+mount)))
	}
	login := func(secretID string) error {
		_, err := n.Bao.Ask("POST", "auth/"+mount+"/login", map[string]any{"role_id": n.RoleID, "secret_id": secretID})
		return err
	}
	named := map[*plugin]bool{}
	if !parts.EventuallyEvery(100*time.Millisecond, startBound, func() bool {
		// A login of a plugin in this time resets the count.
		for range 5 {
			_ = login(parts.RandomName())
		}
		for _, p := range plugins {
			if err := p.works(t.Context()); err != nil && strings.Contains(err.Error(), "locked") {
				named[p] = true
			}
		}
		return len(named) == len(plugins)
	}) {
		t.Fatal("CAUSE NOT TOLD: not both plugins name the lock")
	}
	// The last failed login is a moment ago, so the lock ends after this time at the latest.
	began := time.Now()
	var group sync.WaitGroup
	for i, p := range plugins {
		before := fronts[i].asked.Load()
		group.Go(func() {
			p.waitHealthy(t, "after the last failed login", lock+refusalBound+slack)
			// The waits after refused logins double from 5 s to a minute. Logins that succeed count too.
			most := 8 + int32(time.Since(began)/(50*time.Second))
			asked := fronts[i].asked.Load() - before
			if t.Logf("%d logins", asked); asked > most {
				t.Errorf("%d logins in %v", asked, time.Since(began))
			}
			p.requireNeverTold(t, "does not know this pair", "refused this pair")
		})
	}
	group.Wait()
}
