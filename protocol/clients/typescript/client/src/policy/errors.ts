/** Errors, and whether to retry after them. */

import type { ErrorBody, ErrorCode } from "../protocol/generated.ts";

/** An error of the server, or of the client itself (`unavailable`). */
export class ChaosError extends Error {
  override name = "ChaosError";
  readonly code: ErrorCode | (string & {});
  readonly body: ErrorBody;

  constructor(body: ErrorBody) {
    super(body.message);
    this.code = body.code;
    this.body = body;
  }
}

/** Whether a request may succeed when it is sent again. */
export type Retryability = "rate_limited" | "temporary" | "defect" | "permanent";

const PERMANENT = new Set<string>([
  "bad_request",
  "unauthenticated",
  "forbidden",
  "not_found",
  "method_not_allowed",
  "conflict",
  "precondition_failed",
  "too_large",
  "unsupported",
  "limit_reached",
] satisfies ErrorCode[]);

/** Classifies an error. An unknown code is a defect, like `internal`. */
export function retryability({ code }: ErrorBody): Retryability {
  if (code === "rate_limited") return "rate_limited";
  if (code === "unavailable") return "temporary";
  return PERMANENT.has(code) ? "permanent" : "defect";
}

/** The error of a request without a reply in time. The server may have executed the request. */
export const noReply: ErrorBody = { code: "unavailable", message: "no reply in time" };
