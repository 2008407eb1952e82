package e2e_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	callmeta "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// inventory is what the command inventory prints as JSON.
type inventory struct {
	Source    string
	Objects   int
	Seeds     int
	States    map[string]int
	Resources []struct {
		Resource string
		Groups   []group
	}
	Findings []struct{ Severity, Code, Text string }
	Backups  []struct {
		Name  string
		Needs []struct {
			Keeper           string
			Version, Objects int
		}
	}
	Nodes     []struct{ Name string }
	Judgement struct {
		Keys []struct {
			Keeper         string
			Safe           int
			AtMost         int `json:"at_most"`
			WithoutBackups int `json:"without_backups"`
			Because        []string
			Unneeded       []int
		}
		Obstacles, Missing []struct{ Code, Text string }
	}
}

// group has the objects of one resource under one key.
type group struct {
	State, Provider string
	KeyID           string `json:"key_id"`
	Version         int
	Objects, Seeds  int
	Oldest          string
}

// of returns the groups of a resource.
func (i inventory) of(resource string) (groups []group) {
	for _, r := range i.Resources {
		if r.Resource == resource {
			groups = r.Groups
		}
	}
	return groups
}

// codes returns the codes of the findings of a severity.
func (i inventory) codes(severity string) (codes []string) {
	for _, finding := range i.Findings {
		if finding.Severity == severity {
			codes = append(codes, finding.Code)
		}
	}
	return codes
}

// takeInventory runs the command and requires an exit code.
func takeInventory(t *testing.T, code int, args ...string) (found inventory) {
	t.Helper()
	ctl(t, code, append([]string{"inventory", "--output=json"}, args...)...).answer(t, &found)
	return found
}

// settledFor saves the state of a plugin in a file, as if it had written with its version for a time.
func settledFor(t *testing.T, plugin *parts.Plugin, seconds int) string {
	t.Helper()
	file := filepath.Join(shortDir(t), "node.json")
	save(t, plugin, file)
	text, err := os.ReadFile(file)
	must(t, err)
	var state map[string]any
	must(t, json.Unmarshal(text, &state))
	state["writing_s"] = seconds
	text, err = json.Marshal(state)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o600))
	return file
}

// TestAnInventoryCountsWhatTheTestCounts stores Secrets of two key versions, of another plugin, of another
// provider, in clear, and a damaged one. It compares the inventory with the values in etcd.
func TestAnInventoryCountsWhatTheTestCounts(t *testing.T) {
	t.Parallel()
	other := serveForeign(t)
	c := start(t, delayed(0), func(s *cluster.Settings) {
		s.Route = other.meets
		s.Encryption = func(string) string {
			return cluster.Encrypting("secrets", cluster.NamedKMS("other", other.endpoint), cluster.Identity)
		}
	})
	createMany(t, c.api, 0, 4)
	ours := cluster.KMS(c.plugin.Endpoint)
	c.reconfigure(t, ours, cluster.NamedKMS("other", other.endpoint), cluster.AESCBC, cluster.Identity)
	createMany(t, c.api, 4, 10)
	first := c.keyIDOf(t, "s-00004")
	must(t, c.Rotate())
	second := c.writesUnder(t, c.api, first)
	must(t, c.Etcd.PutAll(
		parts.Entry{Key: "/registry/secrets/default/cbc", Value: []byte("k8s:enc:aescbc:v1:key1:0123456789abcdef")},
		parts.Entry{Key: "/registry/secrets/default/clear", Value: []byte("k8s\x00\n\x0c")},
		parts.Entry{Key: "/registry/secrets/default/damaged", Value: []byte("k8s:enc:kms:v2:vault:\xff")},
	))

	expected, seeds := map[string]int{}, map[string]map[string]bool{}
	for _, s := range c.stored(t) {
		key := "clear"
		for _, provider := range []string{cluster.Provider, "other"} {
			if s.name == "damaged" {
				key = "unreadable"
			} else if object := s.object(t, provider); object != nil {
				key = provider + " " + object.KeyID
				if seeds[key] == nil {
					seeds[key] = map[string]bool{}
				}
				seeds[key][string(object.EncryptedDEKSource)] = true
			} else if strings.HasPrefix(string(s.raw), "k8s:enc:aescbc:") {
				key = "aescbc/v1/key1"
			}
		}
		expected[key]++
	}
	found := takeInventory(t, bad, "--etcd-servers="+c.Etcd.URL)
	counted := map[string]int{}
	for _, g := range found.of("secrets") {
		key := strings.TrimSpace(g.Provider + " " + g.KeyID)
		if key == "" {
			key = g.State
		}
		counted[key] += g.Objects
		if g.Seeds != len(seeds[key]) {
			t.Errorf("%s: %d seeds and not %d", key, g.Seeds, len(seeds[key]))
		}
		version := map[string]int{first: 1, second: 2, foreignKeyID: 1}[g.KeyID]
		if g.Version != version {
			t.Errorf("%s is counted as version %d", key, g.Version)
		}
	}
	if !maps.Equal(counted, expected) || expected["vault "+first] == 0 || expected["vault "+second] == 0 {
		t.Errorf("it counts %v and not %v", counted, expected)
	}
	all, err := c.Etcd.Under("/registry/")
	must(t, err)
	if found.Objects != len(all) {
		t.Errorf("it counts %d of %d objects", found.Objects, len(all))
	}
	if codes := found.codes("bad"); !slices.Equal(codes, []string{"unreadable", "clear"}) {
		t.Errorf("findings: %v", found.Findings)
	}
	if codes := found.codes("notice"); !slices.Equal(codes, []string{"other-plugin", "other-provider"}) {
		t.Errorf("findings: %v", found.Findings)
	}
	// A damaged object makes the judgement impossible.
	if len(found.Judgement.Obstacles) != 1 || found.Judgement.Keys[0].AtMost != 0 {
		t.Errorf("%+v", found.Judgement)
	}

	// The same from a snapshot, and as a list.
	snapshot := filepath.Join(shortDir(t), "snapshot.db")
	must(t, c.Etcd.Save(snapshot))
	of := takeInventory(t, bad, "--etcd-snapshot="+snapshot)
	if !slices.Equal(of.of("secrets"), found.of("secrets")) || of.Objects != found.Objects {
		t.Errorf("the snapshot has %v and not %v", of.Resources, found.Resources)
	}
	listed := ctl(t, bad, "inventory", "--etcd-servers="+c.Etcd.URL, "--resource=secrets", "--list").stdout
	if lines := strings.Count(listed, "\n"); lines != len(c.stored(t)) {
		t.Errorf("%d lines list %d Secrets: %s", lines, len(c.stored(t)), listed)
	}
	if !strings.Contains(listed, "ours\tsecrets/default/s-00004\tvault\t"+first+"\tversion 1\n") {
		t.Errorf("%s", listed)
	}
	clear := ctl(t, bad, "inventory", "--etcd-servers="+c.Etcd.URL, "--resource=secrets", "--list=clear").stdout
	if clear != "clear\tsecrets/default/clear\n" {
		t.Errorf("%q", clear)
	}
	for _, text := range []string{listed, clear} {
		if strings.Contains(text, "canary-of-") || strings.Contains(text, "vault:v") {
			t.Error("it prints a value or a seed")
		}
	}
}

// TestAnInventorySaysWhatMayBeRetired rotates, migrates and raises min_decryption_version as the inventory says. It
// expects that each object is read afterwards, and that a backup from before holds the version back.
func TestAnInventorySaysWhatMayBeRetired(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(0))
	createMany(t, c.api, 0, 10)
	first := c.onlyKeyID(t)
	backup := filepath.Join(shortDir(t), "before.db")
	must(t, c.Etcd.Save(backup))
	must(t, c.Rotate())
	second := c.writesUnder(t, c.api, first)
	etcd := "--etcd-servers=" + c.Etcd.URL
	live := "--node=cp-1=http://" + c.plugin.MetricsAddress()

	// Without the nodes, and soon after the rotation, nothing is promised.
	for _, node := range []string{"", live} {
		args := []string{etcd, "--is-safe=1"}
		missing := "no-node"
		if node != "" {
			args, missing = append(args, node), "node-changed"
		}
		found := takeInventory(t, bad, args...).Judgement
		if len(found.Missing) != 1 || found.Missing[0].Code != missing || found.Keys[0].Safe != 0 || found.Keys[0].AtMost != 1 {
			t.Errorf("%s: %+v", missing, found)
		}
	}
	settled := "--node=cp-1=" + settledFor(t, c.plugin, 601)
	if key := takeInventory(t, good, etcd, settled).Judgement.Keys[0]; key.Safe != 1 || key.Keeper != "vault" {
		t.Errorf("before the migration: %+v", key)
	}
	c.api.migrate(t)
	if c.onlyKeyID(t) != second {
		t.Fatal("the migration left objects")
	}
	held := takeInventory(t, bad, etcd, settled, "--snapshot="+backup, "--is-safe=2")
	if key := held.Judgement.Keys[0]; key.Safe != 1 || key.WithoutBackups != 2 {
		t.Errorf("with a backup: %+v", key)
	}
	if needs := held.Backups[0].Needs; len(needs) != 1 || needs[0].Version != 1 || needs[0].Objects != 10 {
		t.Errorf("the backup needs %+v", needs)
	}
	key := takeInventory(t, good, etcd, settled, "--is-safe=2").Judgement.Keys[0]
	if key.Safe != 2 || !slices.Equal(key.Unneeded, []int{1}) {
		t.Errorf("after the migration: %+v", key)
	}

	raised := map[string]any{"min_decryption_version": 2}
	_, err := c.Bao.Ask("POST", "transit/keys/"+cluster.Key+"/config", raised)
	must(t, err)
	c.restartAPIServer(t)
	c.api.requireList(t, len(c.stored(t)))

	// An object of the archived version is named.
	must(t, c.Etcd.PutAll(ofVersion(t, first, 1)))
	c.plugin.Stop()
	must(t, c.plugin.Restart())
	if !parts.Eventually(converges, c.plugin.Healthy) {
		t.Fatal("the plugin is not healthy")
	}
	lost := takeInventory(t, bad, etcd, live)
	if codes := lost.codes("bad"); !slices.Equal(codes, []string{"version-archived"}) {
		t.Errorf("findings: %+v", lost.Findings)
	}
}

// ofVersion returns a Secret that our plugin seems to have encrypted.
func ofVersion(t *testing.T, keyID string, version int) parts.Entry {
	t.Helper()
	object, err := proto.Marshal(&kmstypes.EncryptedObject{
		EncryptedData: []byte("0123456789abcdef0123456789abcdef"), KeyID: keyID,
		EncryptedDEKSource:     fmt.Appendf(nil, "vault:v%d:AAAA", version),
		EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED,
		Annotations:            map[string][]byte{"format.vault-kube-kms": []byte("1")},
	})
	must(t, err)
	value := append([]byte("k8s:enc:kms:v2:vault:"), object...)
	return parts.Entry{Key: "/registry/secrets/default/" + parts.RandomName(), Value: value}
}

// bareEtcd starts an etcd without a cluster, with some clear objects.
func bareEtcd(t *testing.T, count int) *parts.Etcd {
	t.Helper()
	e, err := parts.StartEtcd(parts.Way{Logs: shortDir(t)}, needed(t, "ETCD"), shortDir(t))
	must(t, err)
	t.Cleanup(e.Kill)
	must(t, e.PutAll(clearObjects(count, "k8s\x00\n")...))
	return e
}

// clearObjects returns objects of a resource that need not be encrypted.
func clearObjects(count int, value string) (entries []parts.Entry) {
	for number := range count {
		key := fmt.Sprintf("/registry/pods/default/p-%07d", number)
		entries = append(entries, parts.Entry{Key: key, Value: []byte(value)})
	}
	return entries
}

// refused runs the command, and requires that it gives no answer and that its error has these texts.
func refused(t *testing.T, args []string, texts ...string) {
	t.Helper()
	done := ctl(t, noAnswer, append([]string{"inventory"}, args...)...)
	for _, text := range texts {
		if !strings.Contains(done.stderr, text) {
			t.Errorf("%q: the error has no %q: %s", args, text, done.stderr)
		}
	}
	if strings.Count(done.stderr, "\n") != 1 || done.stdout != "" {
		t.Errorf("%q: it prints %q and %q", args, done.stdout, done.stderr)
	}
}

// TestAnInventoryOfASecureEtcd reads an etcd that demands client certificates, by the flags and by the manifest of an
// API server. It expects an error with its remedy for each usual mistake.
func TestAnInventoryOfASecureEtcd(t *testing.T) {
	t.Parallel()
	dir, way := shortDir(t), parts.Way{Logs: shortDir(t)}
	folder := func(name string) string {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(path, 0o700))
		return path
	}
	authority, err := parts.NewAuthority(folder("server"), 365)
	must(t, err)
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	server, err := authority.IssueAs(folder("server"), func(c *x509.Certificate) { c.ExtKeyUsage = both })
	must(t, err)
	client, err := authority.IssueAs(folder("client"), func(c *x509.Certificate) { c.ExtKeyUsage = both[1:] })
	must(t, err)
	stranger, err := parts.NewCertificate(folder("stranger"), 365)
	must(t, err)
	e, err := parts.StartSecureEtcd(way, needed(t, "ETCD"), folder("etcd"), server, client)
	must(t, err)
	t.Cleanup(e.Kill)
	must(t, e.PutAll(clearObjects(1000, "k8s\x00\n")...))
	plain := bareEtcd(t, 1)

	servers, ca := "--etcd-servers="+e.URL, "--etcd-cafile="+server.CAFile
	pair := []string{"--etcd-certfile=" + client.CertFile, "--etcd-keyfile=" + client.KeyFile}
	if found := takeInventory(t, good, append(pair, servers, ca)...); found.Objects != 1000 {
		t.Errorf("it counts %d objects", found.Objects)
	}
	// A member that does not answer is left for one that does.
	down := "--etcd-servers=https://" + parts.FreeAddress() + "," + e.URL
	if found := takeInventory(t, good, append(pair, down, ca)...); found.Objects != 1000 {
		t.Errorf("it counts %d objects", found.Objects)
	}
	manifest := filepath.Join(dir, "kube-apiserver.yaml")
	must(t, os.WriteFile(manifest, fmt.Appendf(nil, `apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver}
spec:
  containers:
    - command:
        - kube-apiserver
        - --etcd-servers=%s
        - --etcd-cafile=/pki/server/ca.pem
        - --etcd-certfile=/pki/client/%s
        - --etcd-keyfile=/pki/client/%s
      volumeMounts: [{name: pki, mountPath: /pki}]
  volumes: [{name: pki, hostPath: {path: %s}}]
`, e.URL, filepath.Base(client.CertFile), filepath.Base(client.KeyFile), dir), 0o600))
	if found := takeInventory(t, good, "--api-server-manifest="+manifest); found.Objects != 1000 {
		t.Errorf("by the manifest it counts %d objects", found.Objects)
	}

	address := strings.TrimPrefix(e.URL, "https://")
	refused(t, append(pair, servers, "--etcd-cafile="+stranger.CAFile), "etcd-unreachable", "not from an authority")
	refused(t, []string{servers, ca}, "etcd-unreachable", "demands a client certificate", "--etcd-certfile")
	refused(t, append(pair, servers), "etcd-tls-files", "--etcd-cafile")
	refused(t, []string{"--etcd-servers=http://" + address}, "etcd-unreachable", "https://")
	refused(t, []string{"--etcd-servers=https" + strings.TrimPrefix(plain.URL, "http"), ca}, "etcd-unreachable", "http://")
	refused(t, append(pair, "--etcd-servers=https://localhost.invalid:2379", ca), "does not resolve")
	wrong := []string{"--etcd-certfile=" + stranger.CertFile, "--etcd-keyfile=" + stranger.KeyFile}
	refused(t, append(wrong, servers, ca), "refuses the client certificate")
}

// TestAnInventoryWithAUserOfEtcd reads an etcd that has users.
func TestAnInventoryWithAUserOfEtcd(t *testing.T) {
	t.Parallel()
	const count = 2000
	e := bareEtcd(t, count)
	for _, args := range []string{
		"user add root:root", "user grant-role root root", "role add reader",
		"role grant-permission reader --prefix read /registry/", "user add ann:right", "user grant-role ann reader",
		"user add bob:right", "auth enable",
	} {
		must(t, e.Ctl(strings.Fields(args)...))
	}
	file := func(password string) string {
		path := filepath.Join(shortDir(t), "password")
		must(t, os.WriteFile(path, []byte(password+"\n"), 0o600))
		return "--etcd-password-file=" + path
	}
	servers := "--etcd-servers=" + e.URL
	if found := takeInventory(t, good, servers, "--etcd-user=ann", file("right")); found.Objects != count {
		t.Errorf("it counts %d objects", found.Objects)
	}
	// A token of etcd expires after 5 minutes. The second page is asked again with another one.
	expiring := newMember(t, e, func(call int) error {
		if call == 2 {
			return status.Error(codes.Unauthenticated, "etcdserver: invalid auth token")
		}
		return nil
	})
	found := takeInventory(t, good, "--etcd-servers="+expiring.url, "--etcd-user=ann", file("right"))
	if found.Objects != count || expiring.calls.Load() < 5 {
		t.Errorf("with an expired token it counts %d objects in %d calls", found.Objects, expiring.calls.Load())
	}
	refused(t, []string{servers}, "etcd-not-allowed", "--etcd-user")
	refused(t, []string{servers, "--etcd-user=ann", file("wrong-password")}, "etcd-not-allowed", "password is wrong")
	refused(t, []string{servers, "--etcd-user=bob", file("right")}, "etcd-not-allowed", "may not read", "grant-permission")
}

// TestAnInventoryOfLargeObjects reads a page whose objects together are larger than one answer may be.
func TestAnInventoryOfLargeObjects(t *testing.T) {
	t.Parallel()
	e := bareEtcd(t, 0)
	const count = 60
	for _, entry := range clearObjects(count, "{"+strings.Repeat("x", 1_200_000)) {
		must(t, e.PutAll(entry))
	}
	if found := takeInventory(t, good, "--etcd-servers="+e.URL); found.Objects != count {
		t.Errorf("it counts %d of %d objects", found.Objects, count)
	}
}

// member is a server that passes each call on to an etcd, unless the test answers itself.
type member struct {
	url string
	// calls counts the calls so far.
	calls atomic.Int32
}

// raw passes messages on as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }

// before is called before each call, with its number from 0. An error of it is the answer.
func newMember(t *testing.T, e *parts.Etcd, before func(call int) error) *member {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	conn, err := grpc.NewClient(strings.TrimPrefix(e.URL, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30)))
	must(t, err)
	m := &member{url: "http://" + listener.Addr().String()}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := before(int(m.calls.Add(1)) - 1); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(stream)
		var question, answer []byte
		if err := stream.RecvMsg(&question); err != nil {
			return err
		}
		told, _ := callmeta.FromIncomingContext(stream.Context())
		ctx := stream.Context()
		if token := told.Get("token"); len(token) == 1 {
			ctx = callmeta.AppendToOutgoingContext(ctx, "token", token[0])
		}
		if err := conn.Invoke(ctx, method, &question, &answer); err != nil {
			return err
		}
		return stream.SendMsg(&answer)
	}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		_ = conn.Close()
	})
	return m
}

// TestAnInventoryDuringACompaction expects a named error when etcd removes the revision between two pages.
func TestAnInventoryDuringACompaction(t *testing.T) {
	t.Parallel()
	e := bareEtcd(t, 2000)
	m := newMember(t, e, func(call int) error {
		if call != 1 {
			return nil
		}
		if err := e.PutAll(clearObjects(1, "k8s\x00changed")...); err != nil {
			return err
		}
		after, err := e.Under("/registry/pods/default/p-0000000")
		if err != nil {
			return err
		}
		return e.Ctl("compact", fmt.Sprint(after[0].ModRevision))
	})
	refused(t, []string{"--etcd-servers=" + m.url}, "etcd-compacted", "run the command again")
}

// TestAnInventoryReadsOneRevision changes objects between two pages. It expects the state at the first one.
func TestAnInventoryReadsOneRevision(t *testing.T) {
	t.Parallel()
	e := bareEtcd(t, 2000)
	m := newMember(t, e, func(call int) error {
		if call == 1 {
			return e.PutAll(parts.Entry{Key: "/registry/pods/default/z", Value: []byte("k8s\x00")})
		}
		return nil
	})
	if found := takeInventory(t, good, "--etcd-servers="+m.url); found.Objects != 2000 || m.calls.Load() < 2 {
		t.Errorf("it counts %d objects in %d pages", found.Objects, m.calls.Load())
	}
}

// TestAnInventoryAsksTheNextMember has members fail between two pages: one becomes a learner, one lags, one has
// no leader, and one belongs to another cluster.
func TestAnInventoryAsksTheNextMember(t *testing.T) {
	t.Parallel()
	e := bareEtcd(t, 2000)
	failing := func(answer error) *member {
		return newMember(t, e, func(call int) error {
			if call > 0 {
				return answer
			}
			return nil
		})
	}
	for _, answer := range []error{
		status.Error(codes.Unavailable, "etcdserver: rpc not supported for learner"),
		status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
		status.Error(codes.Unavailable, "etcdserver: no leader"),
		status.Error(codes.ResourceExhausted, "etcdserver: too many requests"),
	} {
		servers := "--etcd-servers=" + failing(answer).url + "," + e.URL
		if found := takeInventory(t, good, servers); found.Objects != 2000 {
			t.Errorf("%v: it counts %d objects", answer, found.Objects)
		}
	}
	another := bareEtcd(t, 2000)
	first := failing(status.Error(codes.Unavailable, "etcdserver: no leader"))
	refused(t, []string{"--etcd-servers=" + first.url + "," + another.URL}, "etcd-other-cluster")
	alone := failing(status.Error(codes.Unavailable, "etcdserver: no leader"))
	refused(t, []string{"--etcd-servers=" + alone.url}, "etcd-unreachable", "no leader")
}
