package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// readFile reads the part of a configuration that the tests write.
func (s *settings) readFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file struct {
		Storage struct {
			Raft map[string]any
		}
		Listener struct {
			TCP struct {
				Address        string
				ClusterAddress string `json:"cluster_address"`
				CertFile       string `json:"tls_cert_file"`
				KeyFile        string `json:"tls_key_file"`
			}
		}
		API     string `json:"api_addr"`
		Cluster string `json:"cluster_addr"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	listener := file.Listener.TCP
	s.Address, s.Cluster = listener.Address, listener.ClusterAddress
	s.CertFile, s.KeyFile = listener.CertFile, listener.KeyFile
	s.API, s.ClusterAPI = file.API, file.Cluster
	s.Raft = map[string]string{}
	for key, value := range file.Storage.Raft {
		if text, ok := value.(string); ok {
			s.Raft[key] = text
			continue
		}
		// The backend takes other values as JSON in a string.
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		s.Raft[key] = string(text)
	}
	return nil
}
