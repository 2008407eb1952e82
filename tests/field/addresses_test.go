package field_test

import (
	"net/http"
	"strings"
	"testing"

	"vault-kube-kms.test/suite"
)

// TestAddressWithAPath expects that the provider reaches a keeper below the path of a proxy: with and without a
// slash at the end, and below two segments.
func TestAddressWithAPath(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ prefix, written string }{
		"one_segment":   {"/vault", "/vault"},
		"a_final_slash": {"/vault", "/vault/"},
		"two_segments":  {"/team/vault", "/team/vault"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			f := newFrontAs(t, n.Bao, suite.Front{Answer: func(w http.ResponseWriter, r *http.Request) bool {
				below, found := strings.CutPrefix(r.URL.Path, c.prefix+"/v1/")
				if !found {
					page(404).write(w)
					return true
				}
				r.URL.Path, r.URL.RawPath = "/v1/"+below, ""
				return false
			}})
			flags := withoutFlag(f.flags(n), "--vault-address")
			p := start(t, append(flags, "--vault-address=https://"+f.Address+c.written))
			requireNone(t, strings.Split(p.checks(t), "\n"), "FAIL")
		})
	}
}

// TestAddressInOtherDress expects that each form of an address works, or that the process ends with exit code 64
// and names the flag and the right form.
func TestAddressInOtherDress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dress func(hostAndPort string) string
		told  []string
	}{
		"carriage_return": {func(at string) string { return "https://" + at + "\r" }, nil},
		"newline":         {func(at string) string { return "https://" + at + "\n" }, nil},
		"blank":           {func(at string) string { return " https://" + at + " " }, nil},
		"quotes":          {func(at string) string { return `"https://` + at + `"` }, nil},
		"capitals":        {func(at string) string { return "HTTPS://" + at }, nil},
		"two_slashes":     {func(at string) string { return "https://" + at + "//" }, nil},
		"v1":              {func(at string) string { return "https://" + at + "/v1" }, []string{`/v1`}},
		"v1_slash":        {func(at string) string { return "https://" + at + "/v1/" }, []string{`/v1`}},
		"path_and_v1":     {func(at string) string { return "https://" + at + "/vault/v1" }, []string{`/v1`}},
		"no_scheme":       {func(at string) string { return at }, nil},
		"localhost":       {func(at string) string { return "https://" + strings.Replace(at, "127.0.0.1", "localhost", 1) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			flags := append(withoutFlag(n.Flags(), "--vault-address"), "--vault-address="+c.dress(n.Bao.Address))
			told := append([]string{`vault-address`, `https://`}, c.told...)
			if c.told != nil {
				requireTold(t, refusedStart(t, flags), told...)
				return
			}
			p := launch(t, flags)
			if !p.endsOrWorks(t, startBound) {
				t.Fatalf("NOT WELL: %s", p.Printed())
			}
			if !p.Alive() {
				if code := p.ExitCode(); code != 64 {
					t.Errorf("it ends with %d", code)
				}
				requireTold(t, p.Printed(), told...)
			}
		})
	}
}

// TestKeyPathMistakes expects that the start refuses a wrong path of the key and names the right form, or that
// the error names the path.
func TestKeyPathMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path func(key string) string
		told []string
	}{
		"v1_ahead":       {func(key string) string { return "/v1/transit/keys/" + key }, []string{`v1`}},
		"v1_without":     {func(key string) string { return "v1/transit/keys/" + key }, []string{`v1`}},
		"no_keys":        {func(key string) string { return "transit/" + key }, nil},
		"encrypt":        {func(key string) string { return "transit/encrypt/" + key }, nil},
		"name_alone":     {func(key string) string { return key }, nil},
		"nothing_behind": {func(string) string { return "transit/keys/" }, nil},
		"no_mount":       {func(key string) string { return "/keys/" + key }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			flags := append(withoutFlag(n.Flags(), "--vault-key-path"), "--vault-key-path="+c.path(n.Key))
			told := append([]string{`vault-key-path`, `<mount>/keys/<key>`}, c.told...)
			requireTold(t, refusedStart(t, flags), told...)
			printed, code := check(t, flags)
			if requireTold(t, printed, told...); code != 2 {
				t.Errorf("check exits with %d", code)
			}
		})
	}
}
