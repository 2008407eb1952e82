package apiserver_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	kmsapi "k8s.io/kms/apis/v2"
)

// TestDescriptorEqualsThePublishedOne compares this project's own text of the KMS v2 contract with the published
// one.
func TestDescriptorEqualsThePublishedOne(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(needed(t, "DESCRIPTOR"))
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(content, &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	found, err := files.FindDescriptorByName("v2.KeyManagementService")
	if err != nil {
		t.Fatal(err)
	}
	ours := facts(found.ParentFile())
	published := facts(kmsapi.File_staging_src_k8s_io_kms_apis_v2_api_proto)
	for _, fact := range published {
		if !slices.Contains(ours, fact) {
			t.Errorf("missing: %s", fact)
		}
	}
	for _, fact := range ours {
		if !slices.Contains(published, fact) {
			t.Errorf("not published: %s", fact)
		}
	}
	if len(published) < 20 {
		t.Errorf("only %d facts are compared", len(published))
	}
}

// facts returns the statements of a file that decide the bytes on the wire, in any order.
func facts(file protoreflect.FileDescriptor) []string {
	all := []string{fmt.Sprintf("package %s, %s", file.Package(), file.Syntax())}
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		all = append(all, fmt.Sprintf("service %s", service.FullName()))
		for j := range service.Methods().Len() {
			method := service.Methods().Get(j)
			all = append(all, fmt.Sprintf("method %s(%s) %s, streaming %v %v", method.FullName(),
				method.Input().FullName(), method.Output().FullName(),
				method.IsStreamingClient(), method.IsStreamingServer()))
		}
	}
	for i := range file.Enums().Len() {
		all = append(all, fmt.Sprintf("enum %s", file.Enums().Get(i).FullName()))
	}
	return append(all, messages(file.Messages())...)
}

func messages(of protoreflect.MessageDescriptors) []string {
	var all []string
	for i := range of.Len() {
		message := of.Get(i)
		all = append(all, fmt.Sprintf("message %s, map entry %v", message.FullName(), message.IsMapEntry()))
		for j := range message.Fields().Len() {
			all = append(all, field(message.Fields().Get(j)))
		}
		all = append(all, messages(message.Messages())...)
	}
	return all
}

func field(field protoreflect.FieldDescriptor) string {
	words := []string{"field", string(field.FullName()), fmt.Sprint(field.Number()), field.Cardinality().String(),
		field.Kind().String(), field.JSONName()}
	if field.Message() != nil {
		words = append(words, string(field.Message().FullName()))
	}
	if field.ContainingOneof() != nil {
		words = append(words, "in", string(field.ContainingOneof().FullName()))
	}
	return strings.Join(words, " ")
}
