package describe

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"chaperone/policy"
)

// readProto reads a FileDescriptorSet (protoc --descriptor_set_out): gRPC's path of
// a method is /package.Service/Method. A method reads where it says that it has no
// side effects, or is bound to GET.
func readProto(d *Draft, b []byte, _ *Options) ([]*Operation, error) {
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(b, set); err != nil {
		return nil, err
	}
	var ops []*Operation
	for _, f := range set.File {
		for _, s := range f.Service {
			ops = append(ops, methodsOf(f.GetPackage(), s)...)
		}
	}
	if len(ops) > 0 {
		d.note("a descriptor names no host: give --host")
	}
	return ops, nil
}

func methodsOf(pkg string, s *descriptorpb.ServiceDescriptorProto) []*Operation {
	name := s.GetName()
	if pkg != "" {
		name = pkg + "." + name
	}
	var ops []*Operation
	for _, m := range s.Method {
		op := &Operation{Method: "POST", Path: "/" + name + "/" + m.GetName(), Name: s.GetName() + "/" + m.GetName(), Verb: true}
		if m.Options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS || boundToGet(m.Options) {
			op.Published = policy.AccessRead
		}
		ops = append(ops, op)
		if m.Options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			get := *op // Connect sends the message of such a method in the query
			get.Method = "GET"
			ops = append(ops, &get)
		}
	}
	return ops
}

// Field numbers of google.api.http and of get in it.
const (
	httpRule    = 72295728
	httpRuleGet = 2
)

// boundToGet looks for the annotation google.api.http {get: …} among the options
// that this program does not know.
func boundToGet(o *descriptorpb.MethodOptions) bool {
	rule := field(o.ProtoReflect().GetUnknown(), httpRule)
	return rule != nil && field(rule, httpRuleGet) != nil
}

// field returns the first length-delimited field of a number.
func field(b []byte, number protowire.Number) []byte {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return nil
		}
		b = b[size:]
		if n == number && kind == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			return v
		}
		if size = protowire.ConsumeFieldValue(n, kind, b); size < 0 {
			return nil
		}
		b = b[size:]
	}
	return nil
}
