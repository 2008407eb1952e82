package parts

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
)

// Etcd is an etcd of one member.
type Etcd struct {
	*Process
	// URL is the address for clients.
	URL string

	way      Way
	programs string
	dir      string
	data     string
	http     *http.Client
	// flags are those of TLS, and access has those of etcdctl that belong to them.
	flags, access []string
}

// StartEtcd starts etcd with its data in a folder. programs is the folder of etcd, etcdctl and etcdutl.
func StartEtcd(way Way, programs, dir string) (*Etcd, error) {
	e := &Etcd{
		URL: "http://" + FreeAddress(), way: way, programs: programs, dir: dir,
		data: filepath.Join(dir, "data"), http: http.DefaultClient,
	}
	return e, e.start()
}

// StartSecureEtcd is StartEtcd with TLS. Its clients need a certificate of the client's authority. The server's
// certificate must be one of these too, because etcd's JSON gateway is a client of etcd.
func StartSecureEtcd(way Way, programs, dir string, server, client Certificate) (*Etcd, error) {
	e := &Etcd{
		URL: "https://" + FreeAddress(), way: way, programs: programs, dir: dir,
		data: filepath.Join(dir, "data"),
		flags: []string{
			"--cert-file=" + server.CertFile, "--key-file=" + server.KeyFile,
			"--client-cert-auth", "--trusted-ca-file=" + client.CAFile,
		},
		access: []string{"--cacert=" + server.CAFile, "--cert=" + client.CertFile, "--key=" + client.KeyFile},
	}
	pair, err := tls.LoadX509KeyPair(client.CertFile, client.KeyFile)
	if err != nil {
		return nil, err
	}
	if e.http, err = trusting(server.CAFile); err != nil {
		return nil, err
	}
	e.http.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	return e, e.start()
}

func (e *Etcd) start() error {
	peers := "http://" + FreeAddress()
	var err error
	e.Process, err = e.way.Start("etcd", append([]string{
		filepath.Join(e.programs, "etcd"), "--name=etcd", "--data-dir=" + e.data, "--log-level=warn",
		"--listen-client-urls=" + e.URL, "--advertise-client-urls=" + e.URL,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers,
		"--initial-cluster=etcd=" + peers,
		// No power failure happens in a test, so etcd need not sync its files.
		"--unsafe-no-fsync",
		// A test may store more than etcd's default of 2 GiB.
		fmt.Sprintf("--quota-backend-bytes=%d", 8<<30),
	}, e.flags...))
	if err != nil {
		return err
	}
	err = e.Until(func() error {
		response, err := e.http.Get(e.URL + "/health")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("health: %s", response.Status)
		}
		return nil
	})
	if err != nil {
		e.Kill()
		return fmt.Errorf("etcd: %w", err)
	}
	return nil
}

// Save writes a snapshot to a file, with the command of operators.
func (e *Etcd) Save(file string) error {
	return e.Ctl("snapshot", "save", file)
}

// Ctl runs etcdctl.
func (e *Etcd) Ctl(args ...string) error {
	return run(slices.Concat([]string{filepath.Join(e.programs, "etcdctl"), "--endpoints=" + e.URL}, e.access, args)...)
}

// Restore goes back to a snapshot. End its clients before.
func (e *Etcd) Restore(file string) error {
	e.Kill()
	e.data = filepath.Join(e.dir, RandomName())
	if err := run(filepath.Join(e.programs, "etcdutl"), "snapshot", "restore", file, "--data-dir="+e.data); err != nil {
		return err
	}
	return e.start()
}

// Compact removes all revisions before this one, and the free pages of the database.
func (e *Etcd) Compact(revision int64) error {
	ctl := []string{filepath.Join(e.programs, "etcdctl"), "--endpoints=" + e.URL}
	if err := run(append(ctl, "compact", "--physical", strconv.FormatInt(revision, 10))...); err != nil {
		return err
	}
	return run(append(ctl, "defrag")...)
}

// Put writes a value, and returns the revision.
func (e *Etcd) Put(key string, value []byte) (int64, error) {
	return e.change("put", map[string]any{"key": []byte(key), "value": value})
}

// Delete deletes a key, and returns the revision.
func (e *Etcd) Delete(key string) (int64, error) {
	return e.change("deleterange", map[string]any{"key": []byte(key)})
}

func (e *Etcd) change(method string, what map[string]any) (int64, error) {
	question, err := json.Marshal(what)
	if err != nil {
		return 0, err
	}
	text, err := e.post("/v3/kv/"+method, question)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Header struct {
			Revision int64 `json:"revision,string"`
		}
	}
	err = json.Unmarshal(text, &answer)
	return answer.Header.Revision, err
}

func run(args ...string) error {
	if out, err := Command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return nil
}

// Entry is a key and its stored value.
type Entry struct {
	Key         string
	Value       []byte
	ModRevision int64
}

// Under returns all entries under a prefix, in the order of keys.
func (e *Etcd) Under(prefix string) ([]Entry, error) {
	end := []byte(prefix)
	end[len(end)-1]++
	question, err := json.Marshal(map[string]string{
		"key":       base64.StdEncoding.EncodeToString([]byte(prefix)),
		"range_end": base64.StdEncoding.EncodeToString(end),
	})
	if err != nil {
		return nil, err
	}
	text, err := e.post("/v3/kv/range", question)
	if err != nil {
		return nil, err
	}
	var answer struct {
		KVs []struct {
			Key, Value  []byte
			ModRevision int64 `json:"mod_revision,string"`
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(answer.KVs))
	for _, kv := range answer.KVs {
		entries = append(entries, Entry{string(kv.Key), kv.Value, kv.ModRevision})
	}
	return entries, nil
}

// putAtOnce is the number of entries that etcd takes in one transaction.
const putAtOnce = 128

// PutAll writes entries, in order. It ignores their revisions.
func (e *Etcd) PutAll(entries ...Entry) error {
	type put struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	}
	type operation struct {
		Put put `json:"request_put"`
	}
	for chunk := range slices.Chunk(entries, putAtOnce) {
		var operations []operation
		for _, entry := range chunk {
			operations = append(operations, operation{put{[]byte(entry.Key), entry.Value}})
		}
		transaction, err := json.Marshal(map[string]any{"success": operations})
		if err != nil {
			return err
		}
		if _, err := e.post("/v3/kv/txn", transaction); err != nil {
			return err
		}
	}
	return nil
}

// post asks the JSON gateway.
func (e *Etcd) post(path string, question []byte) ([]byte, error) {
	response, err := e.http.Post(e.URL+path, "application/json", bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("etcd: %s %s %w", response.Status, text, err)
	}
	return text, nil
}
