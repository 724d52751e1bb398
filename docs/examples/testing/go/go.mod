module example/receipts-test

go 1.25
