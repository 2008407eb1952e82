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

// canary is in the body of every answer of a front. The plugin must never repeat it.
const canary = "canary-of-the-page"

// answer is an answer of a front in place of OpenBao.
type answer struct {
	status            int
	contentType, body string
	location          string
	retryAfter        string
}

func page(status int) answer {
	return answer{status: status, contentType: "text/html; charset=utf-8", body: "<html><body>" + canary + "</body></html>"}
}

// refusal returns an answer in the form of OpenBao.
func refusal(status int, text string) answer {
	return answer{status: status, contentType: "application/json", body: fmt.Sprintf(`{"errors":[%q]}`, text)}
}

// after returns the answer with the time in seconds after which the client may ask again.
func (a answer) after(seconds string) answer {
	a.retryAfter = seconds
	return a
}

func (a answer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", a.contentType)
	if a.location != "" {
		w.Header().Set("Location", a.location)
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body))
}

// front is a proxy between a plugin and OpenBao. A test sets its answers.
type front struct {
	*suite.Served
	bao *parts.OpenBao
	// asked returns the number of login requests.
	asked, given atomic.Int32

	says atomic.Pointer[ruled]
	held atomic.Pointer[chan struct{}]
}

// ruled is an answer and the requests that get it.
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

// say makes some requests get this answer from now on.
func (f *front) say(what answer, to func(*http.Request) bool) {
	f.given.Store(0)
	f.says.Store(&ruled{to, what})
}

// hold keeps all answers back until a channel is closed.
func (f *front) hold(until chan struct{}) { f.held.Store(&until) }

// heal lets OpenBao answer again.
func (f *front) heal() { f.says.Store(nil) }

// flags returns the flags of a plugin that reaches OpenBao through the front.
func (f *front) flags(n *parts.Tenant, more ...string) []string {
	return append(append(n.FlagsVia(f.Address), "--tls-ca-file="+f.CAFile), more...)
}

func isLogin(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/login") }

func isAny(*http.Request) bool { return true }
