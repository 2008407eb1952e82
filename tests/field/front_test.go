package field_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// canary is in the body of every answer that a front gives. It must never be repeated.
const canary = "canary-of-the-page"

// answer is what a front answers in the place of the OpenBao.
type answer struct {
	status            int
	contentType, body string
	location          string
}

func page(status int) answer {
	return answer{status: status, contentType: "text/html; charset=utf-8", body: "<html><body>" + canary + "</body></html>"}
}

// refusal is an answer in the form of the OpenBao's own.
func refusal(status int, text string) answer {
	return answer{status: status, contentType: "application/json", body: fmt.Sprintf(`{"errors":[%q]}`, text)}
}

func (a answer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", a.contentType)
	if a.location != "" {
		w.Header().Set("Location", a.location)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body))
}

// front stands between a plugin and the OpenBao, and can be told what to answer.
type front struct {
	*suite.Served
	bao *parts.OpenBao
	// asked counts the requests to log in, given those that the front answered itself.
	asked, given atomic.Int32

	says atomic.Pointer[ruled]
	held atomic.Pointer[chan struct{}]
}

// ruled is an answer to those requests that it is for.
type ruled struct {
	to     func(*http.Request) bool
	answer answer
}

func newFront(t *testing.T, b *parts.OpenBao) *front {
	t.Helper()
	return newFrontAs(t, b, suite.Front{})
}

// newFrontAs is a front that listens, or shows certificates, in another way.
func newFrontAs(t *testing.T, b *parts.OpenBao, as suite.Front) *front {
	t.Helper()
	f := &front{bao: b}
	otherwise := as.Answer
	as.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		if isLogin(r) {
			f.asked.Add(1)
		}
		if held := f.held.Load(); held != nil {
			select {
			case <-*held:
			case <-r.Context().Done():
			}
		}
		if rule := f.says.Load(); rule != nil && rule.to(r) {
			f.given.Add(1)
			rule.answer.write(w)
			return true
		}
		return otherwise != nil && otherwise(w, r)
	}
	f.Served = as.Serve(t, b)
	return f
}

// say gives an answer to some requests from now on.
func (f *front) say(what answer, to func(*http.Request) bool) {
	f.given.Store(0)
	f.says.Store(&ruled{to, what})
}

// hold keeps all answers back until a channel is closed.
func (f *front) hold(until chan struct{}) { f.held.Store(&until) }

// heal lets the OpenBao answer again.
func (f *front) heal() { f.says.Store(nil) }

// flags are those of a plugin of a tenant that reaches the OpenBao through the front.
func (f *front) flags(n *parts.Tenant, more ...string) []string {
	return append(append(n.FlagsVia(f.Address), "--tls-ca-file="+f.CAFile), more...)
}

func isLogin(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/login") }

func isAny(*http.Request) bool { return true }
