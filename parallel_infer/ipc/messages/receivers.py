"""What each process may be told; mypy names every `match` over one of these unions in which a message is missing."""

from parallel_infer.ipc.messages import jobs, leases, management, models, processes, status

Manage = (
    management.LoadModel
    | management.LoadChain
    | management.ReloadModel
    | management.UnloadModel
    | management.StopServer
)
SupervisorToDispatcher = (
    models.PrepareModel
    | models.OpenModel
    | models.CloseModel
    | models.ModelFailed
    | status.ProcessReport
    | processes.WorkerDown
    | processes.Expect
    | processes.Ping
    | processes.Drain
    | processes.StopWorkers
)
RareToDispatcher = (
    jobs.CancelJob
    | jobs.Overdue
    | jobs.AllCut
    | processes.GatewayUp
    | status.StatusQuery
    | status.TraceQuery
    | Manage
    | leases.WorkerReady
    | leases.DecodeFailed
    | leases.Recalled
    | SupervisorToDispatcher
)
ToDispatcher = jobs.Admit | leases.Decoded | leases.Inferred | leases.Postprocessed | RareToDispatcher
ToGateway = (
    jobs.Refused
    | jobs.Released
    | jobs.AnswersInDoubt
    | status.StatusReply
    | status.Traced
    | jobs.Answered
    | jobs.JobError
    | models.ModelOpened
    | models.ModelClosed
    | models.ChainsServed
    | processes.Register
    | processes.OpenDoor
    | processes.CloseDoor
    | management.Managed
    | processes.Ping
)
ToEveryWorker = processes.Register | processes.StopWorker
ToDecodeWorker = leases.DecodeLease | models.ModelAdded | models.ModelRemoved | ToEveryWorker
ToInferWorker = leases.InferLease | ToEveryWorker
ToPostprocessWorker = leases.PostLease | leases.Recall | models.ModelAdded | models.ModelRemoved | ToEveryWorker
ToSupervisor = processes.KillWorker | Manage | models.ModelServed | models.ModelClosed
FromChild = (
    processes.Started
    | processes.StartFailed
    | processes.Alive
    | processes.Listening
    | status.DoorActivity
    | processes.Drained
    | processes.Left
    | models.Probed
)
