package apiserver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// statusz has the fields of the JSON page that tests read.
type statusz struct {
	Version, State string
	Problem        *struct{ Code, Cause, Remedy string }
	OutagePolicy   string `json:"outage_policy"`
	Versions       []struct {
		Version int
		KeyID   string `json:"key_id"`
		Role    string
		Created time.Time
	}
	Takeover *struct {
		Version int
		InS     int `json:"in_s"`
	}
	WritingFor *int `json:"writing_s"`
	ProvenAgo  *int `json:"proven_s_ago"`
	Session    *struct {
		State     string
		TokenLeft int `json:"token_left_s"`
	}
	Endpoints []struct {
		Address, Breaker string
		Preferred        bool
		Problem          *struct{ Code string }
	}
	LastErrors []lastError `json:"last_errors"`
}

type lastError struct {
	What, Code string
	Times      int
}

// shown starts a healthy plugin with a status page, and returns the address of the page.
func shown(t *testing.T, flags []string) (*plugin, string) {
	t.Helper()
	port := parts.FreePort()
	p := start(t, append(flags, fmt.Sprintf("--metrics-port=%d", port)))
	return p, fmt.Sprintf("http://127.0.0.1:%d/statusz", port)
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", url, response.Status, text)
	}
	return string(text)
}

func readStatusz(t *testing.T, url string) (page statusz) {
	t.Helper()
	must(t, json.Unmarshal([]byte(get(t, url+"?format=json")), &page))
	return page
}

func TestStatuszOfAHealthyPlugin(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p, url := shown(t, tenant.Flags())
	must(t, tenant.Rotate())
	client := p.client(t)
	answer, err := client.Status(t.Context())
	must(t, err)
	if !parts.Eventually(startBound, func() bool { return len(readStatusz(t, url).Versions) == 2 }) {
		t.Fatalf("the new version is not shown: %+v", readStatusz(t, url))
	}
	page := readStatusz(t, url)
	newest, oldest := page.Versions[0], page.Versions[1]
	if newest.Role != "waits" || oldest.Role != "writes" || oldest.KeyID != answer.KeyID {
		t.Errorf("versions: %+v; Status names %s", page.Versions, answer.KeyID)
	}
	if age := time.Since(newest.Created); age < -time.Minute || age > time.Minute {
		t.Errorf("the new version is %v old", age)
	}
	if page.Takeover == nil || page.Takeover.Version != 2 || page.Takeover.InS > 60 {
		t.Errorf("takeover: %+v", page.Takeover)
	}
	if page.WritingFor == nil || *page.WritingFor > 60 {
		t.Errorf("it says that it has written for %v s with its version", page.WritingFor)
	}
	if page.State != "healthy" || page.Problem != nil || page.ProvenAgo == nil || page.OutagePolicy != "stop-writes" {
		t.Errorf("%+v", page)
	}
	if page.Session == nil || page.Session.State != "open" || page.Session.TokenLeft > 60 {
		t.Errorf("session: %+v", page.Session)
	}
	if len(page.Endpoints) != 1 || page.Endpoints[0].Breaker != "closed" || !page.Endpoints[0].Preferred {
		t.Errorf("endpoints: %+v", page.Endpoints)
	}
}

// TestStatuszInAnOutage expects that the page names the fault while the keeper is down, and shows no secret.
func TestStatuszInAnOutage(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	flags := append(tenant.FlagsVia(via.address), "--outage-grace=1s", "--outage-policy=keep-writing")
	_, url := shown(t, flags)
	via.stop()
	if !parts.Eventually(startBound, func() bool {
		page := readStatusz(t, url)
		return page.State == "ailing" && page.Endpoints[0].Breaker != "closed"
	}) {
		t.Fatalf("the outage is not shown: %+v", readStatusz(t, url))
	}
	page := readStatusz(t, url)
	if page.Problem == nil || page.Problem.Code != "keeper-unreachable" || page.Problem.Remedy == "" {
		t.Errorf("problem: %+v", page.Problem)
	}
	if problem := page.Endpoints[0].Problem; problem == nil || problem.Code != "keeper-unreachable" {
		t.Errorf("endpoint: %+v", page.Endpoints)
	}
	unreachable := func(e lastError) bool { return e.Code == "keeper-unreachable" && e.Times > 0 }
	if !slices.ContainsFunc(page.LastErrors, unreachable) {
		t.Errorf("last errors: %+v", page.LastErrors)
	}
	secretID, err := os.ReadFile(tenant.SecretIDFile)
	must(t, err)
	for _, form := range []string{"", "?format=json"} {
		if strings.Contains(get(t, url+form), strings.TrimSpace(string(secretID))) {
			t.Errorf("the page%s shows the secret ID", form)
		}
	}
	via.start(t)
	if !parts.Eventually(10*time.Second, func() bool { return readStatusz(t, url).State == "healthy" }) {
		t.Errorf("not healthy within 10 s: %+v", readStatusz(t, url))
	}
}
