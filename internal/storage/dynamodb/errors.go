package dynamodb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/sidecart/sidecart/internal/storage"
)

// kind says what an error of the client means for the call.
type kind int

const (
	// refused: the server answered, and did nothing; or there are no credentials to ask it with.
	refused kind = iota
	// busy: the same, for now.
	busy
	// unsent: the server never got the request.
	unsent
	// unanswered: the request may have been carried out, and nobody waits any longer.
	unanswered
	// late: the request may still be carried out.
	late
)

// Codes of errors, and messages that have none.
const (
	codeConditionFailed  = "ConditionalCheckFailedException"
	codeTableMissing     = "ResourceNotFoundException"
	codeTableBusy        = "ResourceInUseException"
	codeUnknownOperation = "UnknownOperationException"
	codeInvalid          = "ValidationException"
)

// Codes of a server that is too busy.
var busyCodes = []string{
	"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "Throttling", "TooManyRequestsException", "SlowDown",
}

// Codes of credentials that are wrong. The text that comes with them quotes what was signed, which may hold a session
// token.
var credentialCodes = []string{
	"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "IncompleteSignatureException", "IncompleteSignature",
	"MissingAuthenticationTokenException", "MissingAuthenticationToken", "ExpiredTokenException", "ExpiredToken", "RequestExpired",
}

func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

func kindOf(err error) kind {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, unsigned := errors.AsType[*credentialsError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case unsigned:
		return refused
	case untrusted, isOp && op.Op == "dial":
		return unsent
	case isTimeout(err):
		return late
	}
	// The library returns such an error without a code in two cases: the request was never answered, or something other
	// than DynamoDB answered it.
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		switch c := code(err); {
		case slices.Contains(busyCodes, c) || response.HTTPStatusCode() == http.StatusTooManyRequests:
			return busy
		case c != "" && response.HTTPStatusCode() < 500:
			return refused
		}
	}
	return unanswered
}

// isTimeout reports whether an attempt took as long as it may.
func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// translate turns the client's errors into those of package storage.
func (d *driver) translate(err error) error {
	c := code(err)
	unsigned, isUnsigned := errors.AsType[*credentialsError](err)
	switch {
	case err == nil, isStorage(err), errors.Is(err, context.Canceled):
		return err
	case isUnsigned:
		return unavailable(d.hide(unsigned.Error()))
	case slices.Contains(credentialCodes, c):
		return unavailable(fmt.Sprintf("%s: DynamoDB does not accept the credentials", c))
	case c == codeInvalid && strings.Contains(err.Error(), "Item size"):
		return fmt.Errorf("%w: %w", storage.ErrTooLarge, err)
	case c == codeTableMissing:
		return d.missingTable()
	case kindOf(err) == refused || kindOf(err) == busy:
		api, _ := errors.AsType[smithy.APIError](err)
		return unavailable(d.hide(strings.TrimSuffix(c+": "+api.ErrorMessage(), ": ")))
	}
	if request, ok := errors.AsType[*url.Error](err); ok { // what it is wrapped in says nothing of the cause
		err = request.Err
	}
	return storage.Hide(fmt.Errorf("%w: %w", storage.ErrUnavailable, err), d.accessKeyID, d.secretAccessKey)
}

func isStorage(err error) bool {
	return slices.ContainsFunc(storage.Errors, func(s error) bool { return errors.Is(err, s) })
}

// unavailable is an error of a server that answered and refused, or of a table that cannot be used.
func unavailable(words string) error {
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, &storage.Refusal{Words: words})
}

// hide is text without the credentials.
func (d *driver) hide(text string) string {
	return storage.HideIn(text, d.accessKeyID, d.secretAccessKey)
}

// ended returns the error of a call whose context has ended. A deadline means that DynamoDB did not answer in time;
// cause says why, if that is known.
func ended(ctx context.Context, cause error) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if cause != nil && !errors.Is(err, storage.ErrClosed) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
