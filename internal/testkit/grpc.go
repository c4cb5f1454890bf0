package testkit

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The methods of the service that [GRPC] serves. Both take and give
// google.protobuf.StringValue.
const (
	GRPCUnary = "/chaperone.test.Echo/Say"
	GRPCBidi  = "/chaperone.test.Echo/Talk"
	GRPCWatch = "/chaperone.test.Echo/Watch" // a message every 50 ms, without end
)

// GRPC serves an echo over gRPC to callers whose metadata has secret as bearer.
func GRPC(secret string) http.Handler {
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: strings.Split(GRPCUnary, "/")[1],
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := bearer(ctx, secret); err != nil {
				return nil, err
			}
			if err := read(in); err != nil {
				return nil, err
			}
			return in, nil
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: func(_ any, st grpc.ServerStream) error {
			if err := bearer(st.Context(), secret); err != nil {
				return err
			}
			return talk(st)
		}}, {StreamName: "Watch", ServerStreams: true, Handler: func(_ any, st grpc.ServerStream) error {
			in := new(wrapperspb.StringValue)
			if err := bearer(st.Context(), secret); err != nil {
				return err
			}
			if err := st.RecvMsg(in); err != nil {
				return err
			}
			return Tick(st.Context(), func(int) error { return st.SendMsg(in) })
		}}},
	}, nil)
	return s
}

func bearer(ctx context.Context, secret string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+secret {
		return status.Error(codes.Unauthenticated, "wrong bearer")
	}
	return nil
}

// talk sends each message back until the client is done.
func talk(st grpc.ServerStream) error {
	for {
		m := new(wrapperspb.StringValue)
		if err := st.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := st.SendMsg(m); err != nil {
			return err
		}
	}
}
