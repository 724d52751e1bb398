// How orval makes its client. Without urlEncodeParameters an id with a slash leads to no route. With
// `headers: true` the client does not compile in strict mode: header parameters are no HeadersInit.
export default {
  receipts: {
    input: process.env.RECEIPTS_DOCUMENT,
    output: { target: "orval/client.ts", client: "fetch", urlEncodeParameters: true },
  },
};
