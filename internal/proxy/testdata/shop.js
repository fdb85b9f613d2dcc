// Calls a cart service as a program of the demo shops would. Arguments: the .proto file, its package, the address.
// Each line of the input is a call, ["AddItem", {…}]; each line of the output is its answer or its error.
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const readline = require('readline');

const [file, name, address] = process.argv.slice(2);
const definition = loader.loadSync(file, { keepCase: true, defaults: true });
const { CartService } = grpc.loadPackageDefinition(definition)[name];
const client = new CartService(address, grpc.credentials.createInsecure());

const call = (method, request) =>
  new Promise((resolve) =>
    client[method](request, { deadline: Date.now() + 20000 }, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details } : answer)));

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [method, request] = JSON.parse(line);
    console.log(JSON.stringify(await call(method, request)));
  }
  client.close();
})();
